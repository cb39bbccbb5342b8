"""What a plan still costs: published hours, disk, and the raw files that are not here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from partseg.datasets.facts import DataManifest, data_manifest, manifest_names
from pipelines.raw import fetched_folder
from pipelines.recipe import CONFIGS, Recipe
from pipelines.yaml_files import read_yaml

if TYPE_CHECKING:
    from pipelines.plan import Plan
    from pipelines.workspace import Workspace

WEIGHTS = "weights"
TO_DO = ("run", "maybe", "blocked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Raw files that a plan needs and that are not here.

    Attributes:
        source: the raw source.
        files: the files of the raw folder ``weights`` that are wanted; empty for a dataset.
        why: what is wrong.
        stages: the stages that wait for it.
        todo: what to do, one line each.
        size: bytes to download, as far as they are published; files that another missing source brings
            along count there.
        complete: whether every size is published.
        by_hand: whether a person has to get some of it.
    """

    source: str
    files: tuple[str, ...] = ()
    why: str
    stages: tuple[str, ...]
    todo: tuple[str, ...]
    size: int = 0
    complete: bool = True
    by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is still to be spent.

    Attributes:
        stages: how many stages are not cached.
        hours: published hours of the trainings among them, one after the other.
        gpu_hours: the same times the GPUs of each.
        hardware: what the hours were measured on, such as ``8 V100``.
        other: cost in words -> the stages it is published for, where that is no training.
        unpublished: trainings among them whose time nobody has published.
        missing: raw files that are not here.
        download: bytes of them, as far as they are published.
        peak: bytes of the raw folder while the largest archive is being unpacked.
        artifacts: bytes that the stages will add to the store, judged by the last artifact of each, or by
            others of the same kind.
        unknown: stages whose artifact's size cannot be judged.
        free: free bytes where the home folder is or will be.
    """

    stages: int
    hours: float
    gpu_hours: float
    hardware: str
    other: Mapping[str, tuple[str, ...]]
    unpublished: tuple[str, ...]
    missing: tuple[Missing, ...]
    download: int
    peak: int
    artifacts: int
    unknown: tuple[str, ...]
    free: int

    @property
    def disk(self) -> int:
        """Bytes that are needed at most at the same time."""
        return self.peak + self.artifacts

    @property
    def known(self) -> bool:
        """Whether every size that enters :attr:`disk` is known."""
        return not self.unknown and all(item.complete for item in self.missing)


def training_hours(recipe: Recipe) -> float:
    """Published hours of all trainings of a recipe, one after the other."""
    return float(sum(_number(recipe, stage, "hours") for stage in recipe.stages))


def made_up(recipe: Recipe) -> frozenset[str]:
    """The stages of a recipe that work on made-up raw files: no published cost is theirs."""
    found: set[str] = set()
    for name, stage in recipe.stages.items():  # in an order in which they can run
        invents = stage.kind.name == "acquire" and stage.params.raw_files() is None
        if invents or not found.isdisjoint(stage.needs):
            found.add(name)
    return frozenset(found)


def outlook(plan: Plan, workspace: Workspace) -> Outlook:
    """What is still to be spent before everything selected is there; reads metadata only."""
    todo = [row for row in plan.rows if row.state in TO_DO]
    invented = made_up(plan.recipe)
    counted = [row.stage for row in todo if row.stage not in invented]
    hours = {stage: _number(plan.recipe, stage, "hours") for stage in counted}
    gpus = {stage: _number(plan.recipe, stage, "gpus") or 1 for stage in counted}
    other: dict[str, tuple[str, ...]] = {}
    for row in todo:
        if row.cost and not hours.get(row.stage):
            other[row.cost] = (*other.get(row.cost, ()), row.stage)
    missing, download, peak = _missing(plan, workspace)
    artifacts, unknown = _artifacts(plan, invented)
    return Outlook(
        stages=len(todo),
        hours=sum(hours.values()),
        gpu_hours=sum(hours[stage] * gpus[stage] for stage in counted),
        hardware=_hardware(plan.recipe, [stage for stage in counted if hours[stage]]),
        other=other,
        unpublished=tuple(
            row.stage for row in todo if row.kind == "train" and row.stage in hours and not hours[row.stage]
        ),
        missing=missing,
        download=download,
        peak=peak,
        artifacts=artifacts,
        unknown=unknown,
        free=_free(workspace.home),
    )


def published_cost(recipe: Recipe, stage: str) -> Mapping[str, Any]:
    """What is published about the cost of a stage; hours of a training only for a stage that trains.

    A recipe of one's own may put released weights in the place of a training.
    """
    entry = recipe.published.get(stage)
    if not isinstance(entry, Mapping) or ("hours" in entry and recipe.stages[stage].kind.name != "train"):
        return {}
    return entry


def _number(recipe: Recipe, stage: str, name: str) -> float:
    value = published_cost(recipe, stage).get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _hardware(recipe: Recipe, stages: Iterable[str]) -> str:
    """The words after "on" in the published costs, where all agree."""
    found = {str(published_cost(recipe, stage).get("cost", "")).partition(" on ")[2] for stage in stages}
    return found.pop() if len(found) == 1 else ""


def _artifacts(plan: Plan, invented: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    known: dict[str, list[int]] = {}
    for row in plan.rows:
        if row.size is not None:
            known.setdefault(row.kind, []).append(row.size)
    total, unknown = 0, []
    for row in plan.rows:
        listed = row.kind == "acquire" and row.stage not in invented  # the files stay where they are
        if row.state in TO_DO and not listed:
            if row.size is not None or row.kind in known:
                total += row.size if row.size is not None else int(median(known[row.kind]))
            else:
                unknown.append(row.stage)
    return total, tuple(unknown)


def _missing(plan: Plan, workspace: Workspace) -> tuple[tuple[Missing, ...], int, int]:
    """What is missing, bytes to download, and bytes of disk while the largest archive is unpacked."""
    found: dict[str, list[str]] = {}
    for row in plan.rows:
        if row.missing is not None:
            found.setdefault(row.missing, []).append(row.stage)
    seen: dict[tuple[str, str], int] = {}
    archives = [0]
    result = []
    for source, stages in found.items():
        why = plan.row(stages[0]).why[0]
        if source == WEIGHTS:
            result.append(_weights(plan, stages, workspace))
        elif source in manifest_names() and data_manifest(source).files:
            result.append(_dataset(source, stages, _splits(plan, stages), why, seen, archives))
        else:
            todo = (f"give its folder with --raw {source}=DIR or PARTSEG_RAW_{source.upper()}",)
            result.append(Missing(source=source, why=why, stages=tuple(stages), todo=todo, complete=False))
    download = sum(seen.values())
    return tuple(result), download, download + max(archives)


def _splits(plan: Plan, stages: Iterable[str]) -> set[str]:
    """Splits that stages of a source name in their options."""
    options = (getattr(plan.recipe.stages[stage].params, "options", {}) for stage in stages)
    return {str(split) for option in options for split in option.get("splits") or ()}


def _dataset(
    source: str,
    stages: list[str],
    splits: set[str],
    why: str,
    seen: dict[tuple[str, str], int],
    archives: list[int],
) -> Missing:
    manifest = data_manifest(source)
    # An optional file is wanted for a split that it is named after.
    extra = [file for file in manifest.files if file.optional and not splits.isdisjoint(_words(file.name))]
    new = [
        file
        for file in manifest.files
        if (not file.optional or file in extra) and (_folder(manifest), file.path) not in seen
    ]
    seen.update({(_folder(manifest), file.path): file.size or 0 for file in new})
    archives.extend(file.size or 0 for file in new if file.unpack)
    todo = [f"partseg data get {source}"]
    todo += [f"partseg data get {source} --only {file.name}" for file in extra]
    if manifest.registration is not None:
        todo.append(f"registration: {manifest.registration}")
    return Missing(
        source=source,
        why=why,
        stages=tuple(stages),
        todo=tuple(todo),
        size=sum(file.size or 0 for file in new),
        complete=all(file.size for file in new),
        by_hand=any(file.steps for file in new),
    )


def _weights(plan: Plan, stages: list[str], workspace: Workspace) -> Missing:
    """Files of weights, which a person downloads into the raw folder of that name."""
    urls: dict[str, Any] = read_yaml(CONFIGS / "weights.yaml")
    names = [str(getattr(plan.recipe.stages[stage].params, WEIGHTS)) for stage in stages]
    folder = plan.raw.get(WEIGHTS) or fetched_folder(workspace.home, WEIGHTS)
    todo = [
        f"curl -L --create-dirs -o {folder / name} {urls[name]}"
        if name in urls
        else f"put {name} into {folder}"
        for name in dict.fromkeys(names)
    ]
    return Missing(
        source=WEIGHTS,
        files=tuple(dict.fromkeys(names)),
        why="; ".join(dict.fromkeys(plan.row(stage).why[0] for stage in stages)),
        stages=tuple(stages),
        todo=tuple(todo),
        complete=False,
    )


def _words(name: str) -> set[str]:
    return set(re.split(r"[^A-Za-z0-9]+", name))


def _folder(manifest: DataManifest) -> str:
    return manifest.folder or manifest.name


def _free(folder: Path) -> int:
    """Free bytes of the disk on which a folder is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
