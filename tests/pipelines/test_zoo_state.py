"""What of a published table is in a store, and how near its numbers are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partseg.store import Store
from pipelines import zoo_state
from pipelines.keys import key_of, key_parts
from pipelines.recipe import Recipe, load_recipe
from pipelines.zoo import read_zoo
from pipelines.zoo_state import covered_rows, in_store, labels_of, row_state, run_rows, verdict, zoo_states

ZOO = read_zoo("vlpart")
NAME = "vlpart_cross_category"
LABEL = f"{NAME}@smoke"
SCORES = {
    "segm/AP": 0.155,
    "segm/AP50": 0.335,
    "segm/base/AP": 0.2,
    "segm/base/AP50": 0.44,
    "segm/novel/AP": 0.1,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(NAME, profile="smoke")


def classes(**values: float | None) -> dict[str, Any]:
    rows = [{"name": f"dog:{name}", "ap": value, "ap50": value} for name, value in values.items()]
    return {"segm": {"classes": rows}}


class Builder:
    """Publishes artifacts of a recipe's stages that say what they are, as a run would."""

    def __init__(self, recipe: Recipe, store: Store, folder: Path) -> None:
        self.recipe, self.store, self.folder = recipe, store, folder
        self.trees: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    def __call__(self, *names: str, metrics: Mapping[str, float | None] | None = None, raw: str = "") -> None:
        for name in names:
            stage = self.recipe.stages[name]
            for need in stage.needs:
                if need not in self.trees:
                    self(need)
            parts = key_parts(stage.kind, stage.params, {need: self.trees[need] for need in stage.needs})
            parts |= {"raw": raw} if raw else {}
            out = self.folder / f"out-{len(self.trees)}-{name}"
            out.mkdir(parents=True)
            (out / "metrics.json").write_text(
                json.dumps(
                    classes(head=0.061, torso=0.5, leg=None)
                    | {"stage": {"classes": []}, "name": {"classes": [], "is": name}}
                )
            )
            key = key_of(parts)
            action = self.store.publish(key, out, parts=parts, facts={"metrics": dict(metrics or {})})
            self.trees[name], self.keys[name] = action.tree, key


@pytest.fixture
def build(recipe: Recipe, store: Store, tmp_path: Path) -> Builder:
    return Builder(recipe, store, tmp_path / "made")


def state(recipe: Recipe, store: Store, row: str = "xcat_base") -> zoo_state.RowState:
    there = in_store(recipe, store, [LABEL])
    return row_state(ZOO, ZOO.row(row), recipe, store, there)


def test_a_row_goes_from_nothing_to_done(recipe: Recipe, store: Store, build: Builder) -> None:
    assert state(recipe, store).state == "nothing"
    build("pascal_part")
    chain = ("raw_pascal_part", "pascal_part", "texts", "resnet50", "r50_base", "r50_base_on_pascal_part")
    assert sorted(state(recipe, store).chain) == sorted(chain)
    assert state(recipe, store).state == "2 of 6"
    build("r50_base")
    assert state(recipe, store).state == "5 of 6"
    assert all(number.reproduced is None for number in state(recipe, store).numbers)
    build("r50_base_on_pascal_part", metrics=SCORES)
    assert state(recipe, store).state == "done"
    assert state(recipe, store, "xcat_voc").state == "4 of 8"


def test_numbers_stand_beside_the_published_ones(recipe: Recipe, store: Store, build: Builder) -> None:
    build("r50_base_on_pascal_part", metrics=SCORES)
    found = {number.measure: number for number in state(recipe, store).numbers}
    assert list(found) == list(ZOO.row("xcat_base").metrics["pascal_part"])
    assert found["segm/AP"].published == 15.0
    assert found["segm/AP"].reproduced == pytest.approx(15.5)
    assert found["segm/AP"].delta == pytest.approx(0.5)
    assert [found[name].verdict for name in ("segm/AP", "segm/base/AP", "segm/novel/AP")] == [
        "reached",
        "near",
        "missed",
    ]
    assert found["segm/novel/AP50"].reproduced is None  # not among the metrics
    assert found["segm/novel/AP50"].verdict is None
    assert found["segm/AP50/dog:head"].reproduced == pytest.approx(6.1)  # from the file of results
    assert found["segm/AP50/dog:torso"].delta == pytest.approx(42.1)
    assert found["segm/AP50/dog:leg"].reproduced is None  # no truth
    assert found["segm/AP50/dog:paw"].reproduced is None  # not there at all


def test_other_measures_that_may_be_meant_stand_beside(store: Store, tmp_path: Path) -> None:
    joint = load_recipe("vlpart_r50_paco", profile="smoke")
    build = Builder(joint, store, tmp_path / "made")
    build("r50_paco_on_paco_lvis_v1", metrics={"segm/AP": 0.08, "segm/obj-part-AP": 0.105})
    found = row_state(ZOO, ZOO.row("r50_specific_paco"), joint, store, in_store(joint, store, []))
    number = found.numbers[0]
    assert (number.published, number.reproduced) == (10.6, pytest.approx(8.0))
    assert number.maybe == {"segm/obj-AP": None, "segm/obj-part-AP": pytest.approx(10.5)}


def test_another_input_or_parameter_is_not_there(recipe: Recipe, store: Store, build: Builder) -> None:
    build("r50_base_on_pascal_part", metrics=SCORES)
    changed = load_recipe(NAME, profile="smoke", overrides={"r50_base.seed": 7})
    assert state(changed, store).state == "4 of 6"
    again = Builder(recipe, store, build.folder / "again")
    again("r50_base", metrics={})
    assert again.trees["r50_base"] == build.trees["r50_base"]  # the same content: still done
    assert state(recipe, store).state == "done"


def test_raw_files_count_as_a_recipe_saw_them_last(store: Store, tmp_path: Path) -> None:
    full = load_recipe(NAME)
    build = Builder(full, store, tmp_path / "made")
    build("raw_pascal_part", raw="listing")
    assert in_store(full, store, labels_of(ZOO, None)) == {}  # nobody says which files these were
    store.set_ref(
        "vlpart_r50", "raw_pascal_part", build.keys["raw_pascal_part"]
    )  # another recipe of the zoo does
    assert set(in_store(full, store, labels_of(ZOO, None))) == {"raw_pascal_part"}
    assert in_store(full, store, labels_of(ZOO, "smoke")) == {}
    other = replace(full, stages={**full.stages})
    other.stages["raw_pascal_part"] = load_recipe(  # type: ignore[index]
        NAME, overrides={"raw_pascal_part.options": {"allow_missing": True}}
    ).stages["raw_pascal_part"]
    assert in_store(other, store, labels_of(ZOO, None)) == {}


def test_after_a_run_the_rows_are_those_of_its_recipe(recipe: Recipe, store: Store, build: Builder) -> None:
    build("r50_base_on_pascal_part", metrics=SCORES)
    states = run_rows(recipe, store, build.keys)
    assert [one.row.id for one in states] == [
        "xcat_base",
        "xcat_voc",
        "xcat_ins20_label",
        "xcat_ins20_parsed",
    ]
    assert [one.state for one in states] == ["done", "4 of 8", "4 of 11", "5 of 15"]
    content = states[0].as_json()
    assert content == json.loads(json.dumps(content))
    assert content["checkpoint"].endswith("/r50_pascalpartbase.pth")
    assert content["numbers"][0]["delta"] == pytest.approx(0.5)
    assert {stage["stage"] for stage in content["stages"] if stage["in_store"]} == set(build.keys)
    assert run_rows(load_recipe("demo"), store, {}) == []


def test_every_row_of_an_empty_store(store: Store) -> None:
    states = zoo_states(ZOO, store)
    assert [one.row for one in states] == list(ZOO.rows)
    assert {one.state for one in states} == {"nothing"}
    assert {one.row.id: one.hours for one in states}["swinbase_joint_in_parsed"] == 79


def test_a_recipe_covers_a_row_if_it_has_all_its_evaluations() -> None:
    rows = [row.id for row in covered_rows(ZOO, load_recipe("vlpart_r50"))]
    assert rows == ["xds2_lvis_paco"] + [
        f"r50_joint{end}" for end in ("", "_star", "_star2", "_in_label", "_in_parsed")
    ]


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (None, None),
        (0, "reached"),
        (1.0, "reached"),
        (-1.0, "reached"),
        (44.5 - 43.5, "reached"),
        (1.1, "near"),
        (-3.0, "near"),
        (3.1, "missed"),
        (-44.5, "missed"),
    ],
)
def test_verdicts(delta: float | None, expected: str | None) -> None:
    assert verdict(delta) == expected
