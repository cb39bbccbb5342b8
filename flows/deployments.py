"""Every recipe and every source as a deployment: what it is called, says, is given, and where it queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partseg.errors import RecipeError
from pipelines.cost import training_hours
from pipelines.problems import suggestion
from pipelines.recipe import Recipe, load_recipe, recipe_names
from pipelines.workspace import Workspace
from pipelines.zoo import Row, Zoo, read_zoo

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

GPU, CPU = "gpu", "cpu"
GPU_KINDS = ("train", "parse")
SHOWN = 3
"""Published numbers of a row that its line shows; `partseg zoo` has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all deployments have in common.

    Attributes:
        workspace: of this machine; its store, home, raw folders, workers and launch become parameters.
        remote: leave home, and a store that nobody named, to the machines that run: to their
            ``PARTSEG_HOME`` and ``PARTSEG_STORE``.
        store: the store somebody named.
        profile: profile of every recipe.
        processes: processes that train, a number or ``auto``.
        queues: queue of the recipes that want a GPU, and of all other deployments; None is the pool's own.
        folder: where a worker runs the flow; None is a temporary folder.
        schedules: recipe -> cron line, in UTC.
    """

    workspace: Workspace
    remote: bool = False
    store: str | None = None
    profile: str | None = None
    processes: int | str | None = None
    queues: tuple[str, str] | None = None
    folder: Path | None = None
    schedules: Mapping[str, str] = field(default_factory=dict)


def deployments(settings: Settings, names: Sequence[str] = ()) -> Iterator[RunnerDeployment]:
    """One deployment per recipe, ``reproduce/RECIPE``, and one per source, ``convert/SOURCE``.

    Paths are settled here: a worker runs flows in a folder of its own.

    Args:
        settings: what they have in common.
        names: these recipes and sources; all, if there are none.

    Raises:
        RecipeError: there is no such recipe or source, or a recipe has no such profile.
    """
    from prefect.types.entrypoint import EntrypointType

    from flows.convert import convert
    from flows.reproduce import reproduce
    from partseg.datasets.catalogue import SOURCES

    known = [*recipe_names(), *sorted(SOURCES)]
    for name in [*names, *settings.schedules]:
        if name not in known:
            raise RecipeError(f"there is no recipe or source called {name}", fix=suggestion(name, known))
    wanted = list(names) or known
    given = _parameters(settings)
    variables = {"working_dir": str(settings.folder)} if settings.folder is not None else None
    gpu, cpu = settings.queues or (None, None)
    for name in wanted:
        common: dict[str, Any] = {
            "name": name,
            "job_variables": variables,
            "cron": settings.schedules.get(name),
            "entrypoint_type": EntrypointType.MODULE_PATH,
        }
        if name in SOURCES:
            made: Any = convert.to_deployment(
                parameters={"source": name, "workers": settings.workspace.workers},
                description=f"Raw files of {name} to the common layout.",
                tags=["partseg", "convert"],
                work_queue_name=cpu,
                **common,
            )
        else:
            recipe = load_recipe(name, profile=settings.profile)
            made = reproduce.to_deployment(
                parameters={"recipe": name, **given},
                description=describe(recipe),
                tags=tags(recipe),
                work_queue_name=gpu if wants_gpu(recipe) else cpu,
                **common,
            )
        yield made


def wants_gpu(recipe: Recipe) -> bool:
    """Whether something of it trains or parses and nobody says (tag ``cpu``) that a processor will do."""
    kinds = {stage.kind.name for stage in recipe.stages.values()}
    return "cpu" not in recipe.tags and not kinds.isdisjoint(GPU_KINDS)


def tags(recipe: Recipe) -> list[str]:
    """For finding it on Prefect's pages: the recipe's own, and what it needs."""
    return ["partseg", *recipe.tags, *([GPU] if wants_gpu(recipe) else [])]


def describe(recipe: Recipe) -> str:
    """Markdown: what it makes, the published cost, and the published rows it reproduces."""
    parts = [recipe.description] if recipe.description else []
    if recipe.zoo is not None and (rows := _rows(recipe, zoo := read_zoo(recipe.zoo))):
        hours, on = training_hours(recipe), zoo.hardware
        parts.append(
            f"Published by {zoo.source}: {hours:g} h of training on {on.gpus} {on.gpu} for everything in it."
        )
        lines = [
            "| row | stage | hours, one training after the other | published |",
            "|---|---|---|---|",
            *(_line(row, zoo) for row in rows),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _rows(recipe: Recipe, zoo: Zoo) -> list[Row]:
    """The rows that are this recipe's own; of a recipe that has none, all whose stage it makes."""
    found = [row for row in zoo.rows if row.stage in recipe.stages]
    return [row for row in found if zoo.recipe_of(row) == recipe.name] or found


def _line(row: Row, zoo: Zoo) -> str:
    numbers = [
        f"{dataset} {measure} {value:g}"
        for dataset, measures in row.metrics.items()
        for measure, value in list(measures.items())[:1]
    ]
    more = "" if len(numbers) <= SHOWN else ", …"
    label = f"{zoo.tables[row.table].title}: {row.label}"
    hours = " + ".join(f"{hours:g}" for hours in row.hours)
    return f"| {label} | `{row.stage}` | {hours} | {', '.join(numbers[:SHOWN])}{more} |"


def _parameters(settings: Settings) -> dict[str, Any]:
    workspace = settings.workspace
    given: dict[str, Any] = {
        "profile": settings.profile,
        "raw": {name: str(folder) for name, folder in workspace.raw.items()} or None,
        "processes": settings.processes,
        "store": settings.store if settings.remote else workspace.store.url,
        "home": None if settings.remote else str(workspace.home),
    }
    return {name: value for name, value in given.items() if value is not None} | {
        "workers": workspace.workers
    }
