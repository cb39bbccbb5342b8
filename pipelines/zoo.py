"""Published tables of models: which stage reproduces which row, what it took, and the numbers to reach.

They are data, in ``data_manifests/zoos``; no number here enters a key. What the train stage ``STAGE`` makes
is evaluated on the dataset ``DATASET`` by the stage ``STAGE_on_DATASET``, see :func:`evaluation`.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from partseg.errors import RecipeError
from pipelines.problems import first_problem, suggestion
from pipelines.yaml_files import read_yaml

FOLDER = Path(__file__).resolve().parents[1] / "data_manifests" / "zoos"

Hours = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Hardware(_Strict):
    """What the published hours were measured on."""

    gpus: Annotated[int, Field(ge=1)]
    gpu: str


class Table(_Strict):
    """A published table, and the recipe that reproduces its rows (a row may name another one)."""

    title: str
    recipe: str | None = None
    note: str = ""


class Row(_Strict):
    """One row of a table.

    Attributes:
        id: its name here.
        table: the table it stands in.
        label: what the table calls it.
        recipe: the recipe that reproduces it, where that is not the table's.
        stage: the train stage of that recipe whose result it describes.
        config: the original's configuration file.
        checkpoint: the released file.
        hours: published training time, one number per training in a row; the last is that of ``stage``.
        metrics: dataset stage -> measure such as ``segm/AP50`` or ``segm/novel/AP`` -> percent. A single
            category's comes last: ``segm/AP50/dog:head``.
    """

    id: str
    table: str
    label: str
    recipe: str | None = None
    stage: str
    config: str
    checkpoint: str
    hours: Annotated[tuple[Hours, ...], Field(min_length=1)]
    metrics: dict[str, dict[str, float]]


class Zoo(_Strict):
    """All tables of one publication.

    Attributes:
        name: the file's name.
        source: who published what.
        release: where the checkpoints are.
        hardware: of the published hours.
        tables: by name.
        rows: in the published order.
        minutes: published times of other stages, with what they include.
        whole: a recipe that has the stages of all rows.
        maybe: dataset stage -> measure -> others that may be meant, where the publication does not say.
    """

    name: str
    source: str
    release: str
    hardware: Hardware
    whole: str
    maybe: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    tables: dict[str, Table]
    rows: tuple[Row, ...]
    minutes: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Zoo:
        ids = [row.id for row in self.rows]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two rows are called {twice[0]}")
        for row in self.rows:
            if row.table not in self.tables:
                raise ValueError(f"row {row.id}: there is no table {row.table}")
            if self.recipe_of(row) == "":
                raise ValueError(f"row {row.id}: neither it nor its table names a recipe")
        hours: dict[str, float] = {}
        for row in self.rows:
            if hours.setdefault(row.stage, row.hours[-1]) != row.hours[-1]:
                raise ValueError(f"row {row.id}: another row gives {row.stage} other hours")
        measures = {
            (name, measure) for row in self.rows for name in row.metrics for measure in row.metrics[name]
        }
        for dataset, others in self.maybe.items():
            for measure in others:
                if (dataset, measure) not in measures:
                    raise ValueError(f"maybe: no row has {measure} on {dataset}")
        numbers: dict[tuple[str, str], float] = {}
        for row in self.rows:
            for dataset, metrics in row.metrics.items():
                for measure, value in metrics.items():
                    if numbers.setdefault((evaluation(row.stage, dataset), measure), value) != value:
                        raise ValueError(f"row {row.id}: another row gives {row.stage} another {measure}")
        return self

    def recipe_of(self, row: Row) -> str:
        """The recipe that reproduces a row."""
        return row.recipe or self.tables[row.table].recipe or ""

    def row(self, name: str) -> Row:
        """The row called ``name``.

        Raises:
            RecipeError: there is none.
        """
        found = next((row for row in self.rows if row.id == name), None)
        if found is None:
            fix = suggestion(name, [row.id for row in self.rows])
            raise RecipeError(f"the zoo {self.name} has no row {name}", fix=fix)
        return found

    def published(self) -> dict[str, dict[str, Any]]:
        """What is known about each stage.

        Of a training: its cost in words, hours, and the rows that describe it; of an evaluation: its numbers
        in percent, by measure.
        """
        on = f"on {self.hardware.gpus} {self.hardware.gpu}"
        found: dict[str, dict[str, Any]] = {
            stage: {"cost": f"{words} {on}"} for stage, words in self.minutes.items()
        }
        for row in self.rows:
            entry = found.setdefault(
                row.stage,
                {
                    "cost": f"{row.hours[-1]:g} h {on}",
                    "hours": row.hours[-1],
                    "gpus": self.hardware.gpus,
                    "rows": [],
                },
            )
            entry["rows"].append(row.id)
            for dataset, metrics in row.metrics.items():
                found.setdefault(evaluation(row.stage, dataset), {"metrics": {}})["metrics"].update(metrics)
        return found


def evaluation(stage: str, dataset: str) -> str:
    """Name of the stage that evaluates the result of ``stage`` on the dataset of the stage ``dataset``."""
    return f"{stage}_on_{dataset}"


def find_row(name: str) -> tuple[Zoo, Row]:
    """The row called ``name`` of whichever zoo has it.

    Raises:
        RecipeError: none has; it names the one that is meant, if one is close.
    """
    zoos = [read_zoo(zoo) for zoo in zoo_names()]
    for zoo in zoos:
        for row in zoo.rows:
            if row.id == name:
                return zoo, row
    known = [row.id for zoo in zoos for row in zoo.rows]
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    fix = f"did you mean {close[0]}?" if close else "partseg zoo lists the rows"
    raise RecipeError(f"no published row is called {name}", fix=fix)


def zoo_names() -> list[str]:
    """Names of the zoos that come with partseg."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def read_zoo(name: str) -> Zoo:
    """The zoo called ``name``.

    Raises:
        RecipeError: there is none, or its file is wrong.
    """
    if name not in zoo_names():
        raise RecipeError(f"there is no zoo called {name}", fix=suggestion(name, zoo_names()))
    path = FOLDER / f"{name}.yaml"
    try:
        return Zoo.model_validate({"name": name, **read_yaml(path)})
    except ValidationError as error:
        what, fix = first_problem(error, Zoo)
        raise RecipeError(what, where=path, fix=fix) from None
