"""Which stages of published rows are in a store, and their numbers beside the published ones.

Reads metadata only, and no raw folder: raw files count as they were last seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from partseg.store import Action, Store
from pipelines.evaluate import RESULTS
from pipelines.graph import ancestors
from pipelines.keys import key_of, key_parts
from pipelines.recipe import Recipe, load_recipe
from pipelines.zoo import Row, Zoo, evaluation, read_zoo

Verdict = Literal["reached", "near", "missed"]
NEAR, FAR = 1.0, 3.0
"""Points of difference up to which a number counts as reached, and up to which as near. Chosen here: the
publication states no spread."""
TOLERANCE = (
    f"Green: at most {NEAR:g} point from the published number, above or below; yellow: at most {FAR:g}; "
    "red: more. Single classes vary more than means."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A published number and ours, in percent.

    Attributes:
        dataset: the stage that makes the dataset.
        measure: such as ``segm/novel/AP50``.
        published: what was published.
        reproduced: what we measured; None where it was not, or where it is not defined (no truth).
        maybe: other measures that the publication may mean, and what we measured.
    """

    dataset: str
    measure: str
    published: float
    reproduced: float | None = None
    maybe: Mapping[str, float | None]

    @property
    def delta(self) -> float | None:
        """Points by which ours is higher."""
        return None if self.reproduced is None else self.reproduced - self.published

    @property
    def verdict(self) -> Verdict | None:
        """How near it is; see :data:`TOLERANCE`."""
        return verdict(self.delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """A row, and what of it is there.

    Attributes:
        zoo: that it is a row of.
        row: what was published.
        recipe: the recipe to run.
        chain: the stages it takes, in an order in which they can run; its evaluations are the last.
        evaluations: dataset stage -> stage.
        there: those of the chain that are in the store.
        numbers: in the published order.
    """

    zoo: Zoo
    row: Row
    recipe: str
    chain: tuple[str, ...]
    evaluations: Mapping[str, str]
    there: frozenset[str]
    numbers: tuple[Number, ...]

    @property
    def state(self) -> str:
        """``nothing``, ``done`` (all evaluations are there), or how many stages of the chain are there."""
        if all(stage in self.there for stage in self.evaluations.values()):
            return "done"
        return f"{len(self.there)} of {len(self.chain)}" if self.there else "nothing"

    @property
    def hours(self) -> float:
        """Published hours of all its trainings."""
        return sum(self.row.hours)

    def as_json(self) -> dict[str, Any]:
        """Plain data for machines and for the report."""
        row, table = self.row, self.zoo.tables[self.row.table]
        return {
            "zoo": self.zoo.name,
            "row": row.id,
            "label": row.label,
            "table": row.table,
            "title": table.title,
            "note": table.note,
            "recipe": self.recipe,
            "stage": row.stage,
            "config": row.config,
            "checkpoint": f"{self.zoo.release}{row.checkpoint}",
            "hours": list(row.hours),
            "hardware": self.zoo.hardware.model_dump(),
            "state": self.state,
            "stages": [{"stage": stage, "in_store": stage in self.there} for stage in self.chain],
            "numbers": [
                {
                    **asdict(number),
                    "maybe": dict(number.maybe),
                    "delta": number.delta,
                    "verdict": number.verdict,
                }
                for number in self.numbers
            ],
        }


def verdict(delta: float | None) -> Verdict | None:
    """How near a number is that is ``delta`` points above the published one; None where there is none."""
    if delta is None:
        return None
    off = round(abs(delta), 6)  # published numbers have one decimal: 1.0 is not 1.0000000000000009
    return "reached" if off <= NEAR else "near" if off <= FAR else "missed"


def zoo_states(zoo: Zoo, store: Store, *, profile: str | None = None) -> list[RowState]:
    """The state of every row of a zoo.

    Raises:
        RecipeError: its recipe cannot be read, has no such profile, or lacks the stages of a row.
    """
    whole = load_recipe(zoo.whole, profile=profile)
    there = in_store(whole, store, labels_of(zoo, profile))
    return [row_state(zoo, row, whole, store, there) for row in zoo.rows]


def run_rows(recipe: Recipe, store: Store, keys: Mapping[str, str]) -> list[RowState]:
    """The rows that a recipe covers, after a run.

    Args:
        recipe: that was run.
        store: with its artifacts.
        keys: stage -> key, of the stages that have an artifact.
    """
    if recipe.zoo is None:
        return []
    zoo = read_zoo(recipe.zoo)
    there = {name: action for name, key in keys.items() if (action := store.action(key)) is not None}
    return [row_state(zoo, row, recipe, store, there) for row in covered_rows(zoo, recipe)]


def labels_of(zoo: Zoo, profile: str | None) -> list[str]:
    """The names under which the recipes of a zoo leave references: their stages are the same."""
    names = dict.fromkeys([zoo.whole, *(zoo.recipe_of(row) for row in zoo.rows)])
    return [f"{name}@{profile}" if profile else name for name in names]


def covered_rows(zoo: Zoo, recipe: Recipe) -> list[Row]:
    """The rows of which a recipe has the training and every evaluation."""
    return [
        row
        for row in zoo.rows
        if all(name in recipe.stages for name in (row.stage, *evaluations(row).values()))
    ]


def evaluations(row: Row) -> dict[str, str]:
    """Dataset stage -> the stage that evaluates the row there."""
    return {dataset: evaluation(row.stage, dataset) for dataset in row.metrics}


def row_state(zoo: Zoo, row: Row, recipe: Recipe, store: Store, there: Mapping[str, Action]) -> RowState:
    """The state of one row.

    Args:
        zoo: that it is a row of.
        row: the row.
        recipe: has its stages.
        store: has the artifacts.
        there: those of the recipe's stages that are finished.
    """
    stages = evaluations(row)
    wanted = ancestors(recipe.needs, [row.stage, *stages.values()])
    return RowState(
        zoo=zoo,
        row=row,
        recipe=zoo.recipe_of(row),
        chain=tuple(name for name in recipe.stages if name in wanted),
        evaluations=stages,
        there=wanted & there.keys(),
        numbers=tuple(
            number
            for dataset, metrics in row.metrics.items()
            for number in numbers_of(zoo, dataset, metrics, store, there.get(stages[dataset]))
        ),
    )


def numbers_of(
    zoo: Zoo, dataset: str, metrics: Mapping[str, float], store: Store, action: Action | None
) -> list[Number]:
    """The published numbers of one dataset beside those of an evaluate stage's artifact, if there is one."""
    others = zoo.maybe.get(dataset, {})
    wanted = [*metrics, *(name for measure in metrics for name in others.get(measure, ()))]
    found = {} if action is None else measured(store, action, wanted)
    return [
        Number(
            dataset=dataset,
            measure=measure,
            published=value,
            reproduced=found.get(measure),
            maybe={name: found.get(name) for name in others.get(measure, ())},
        )
        for measure, value in metrics.items()
    ]


def measured(store: Store, action: Action, measures: Iterable[str]) -> dict[str, float | None]:
    """Measures of an evaluate stage's artifact, in percent; None for those that it does not define.

    Headline numbers stand in its record; those of single classes (``segm/AP50/dog:head``) in its results.
    """
    headline = action.facts.get("metrics", {})
    found: dict[str, float | None] = {}
    classes: dict[str, float | None] | None = None
    for measure in measures:
        value = headline.get(measure)
        if value is None and measure.count("/") == 2:
            classes = _classes(store, action) if classes is None else classes
            value = classes.get(measure)
        found[measure] = None if value is None else 100 * float(value)
    return found


def _classes(store: Store, action: Action) -> dict[str, float | None]:
    entry = next((item for item in store.tree(action.tree).entries if item.path == RESULTS), None)
    if entry is None:
        return {}
    content: Mapping[str, Any] = orjson.loads(store.blobs.local(entry).read_bytes())
    return {
        f"{kind}/{name}/{row['name']}": row[name.lower()]
        for kind, result in content.items()
        for row in result["classes"]
        for name in ("AP", "AP50")
    }


def in_store(recipe: Recipe, store: Store, labels: Sequence[str]) -> dict[str, Action]:
    """The stages of a recipe whose artifact, made from what is in the store, is there.

    Args:
        recipe: whose stages.
        store: where.
        labels: names under which recipes with these stages have left references: they say which raw files
            were read.
    """
    found: dict[str, Action] = {}
    for name, stage in recipe.stages.items():
        if any(need not in found for need in stage.needs):
            continue
        digests = {need: found[need].tree for need in stage.needs}
        if stage.params.raw_files() is None:
            action = store.action(key_of(key_parts(stage.kind, stage.params, digests)))
        else:
            keys = dict.fromkeys(key for label in labels if (key := store.ref(label, name)) is not None)
            last = (action for key in keys if (action := store.action(key)) is not None)
            action = next(
                (
                    one
                    for one in last
                    if one.key == key_of(key_parts(stage.kind, stage.params, digests, one.parts.get("raw")))
                ),
                None,
            )
        if action is not None:
            found[name] = action
    return found
