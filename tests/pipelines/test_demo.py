"""The demo's whole graph, scaled down to seconds: real files, real stages, real store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from partseg.layout.checks import audit
from pipelines.inputs import open_dataset
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe, recipe_names
from pipelines.run import Run, run_recipe
from pipelines.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = tmp_path_factory.mktemp("home")
    return Workspace.open(home=home, store=str(home / "store"), processes=0)


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    return run_recipe(plan(workspace), workspace)


def plan(workspace, selection=None, **overrides):
    recipe = load_recipe("demo", profile="smoke", overrides=overrides)
    return make_plan(recipe, workspace, selection or Selection())


def test_every_recipe_that_comes_with_partseg_loads():
    assert {"demo", "demo_ablation", "pascal_part_sample", "prepare"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).stages


def test_every_stage_is_built_and_then_cached(run, workspace):
    assert {result.state for result in run.results.values()} == {"built"}
    assert {row.state for row in plan(workspace).rows} == {"cached"}


def test_one_parameter_runs_its_stage_and_what_comes_after_may_follow(run, workspace):
    changed = plan(workspace, **{"parsed.parser.match_iou": 0.2})
    states = {row.stage: row.state for row in changed.rows}
    assert states["parsed"] == "run"
    assert {name for name, state in states.items() if state == "maybe"} == {
        "with_parsed",
        "eval_with_parsed",
        "report",
    }
    assert set(states.values()) == {"run", "maybe", "cached"}
    assert changed.row("parsed").why == ("params.parser.match_iou: 0.1 -> 0.2",)


def test_pseudo_labels_are_a_dataset_that_says_where_they_come_from(run):
    parsed = open_dataset(run.artifact("parsed"))
    assert audit(parsed) == []
    split = parsed.split("train")
    assert len(split) > 0
    names = {category.category_id: category for category in parsed.categories}
    for record in split:
        label = names[int(record.pos_category_ids[0])].name
        assert set(record.origin) == {"parse"}
        assert split.image_path(0).is_file()
        for category_id, parent in zip(record.category_ids, record.parent_rows, strict=True):
            category = names[int(category_id)]
            if category.kind == "part":
                assert category.name.startswith(f"{label}:")
                assert int(record.category_ids[parent]) == int(record.pos_category_ids[0])
    assert parsed.manifest.run_id is not None
    assert len(split) + split.entry.dropped == split.entry.source_records


def test_training_saw_no_part_of_a_novel_object(run):
    parts = open_dataset(run.artifact("parts"))
    groups = {category.category_id: category.group for category in parts.categories}
    seen = {groups[int(i)] for record in parts.split("train") for i in record.category_ids}
    held_out = {groups[int(i)] for record in parts.split("val") for i in record.category_ids}
    assert seen == {"base"}
    assert held_out == {"base", "novel"}


def test_the_report_is_one_file_with_pictures_and_no_outside_references(run):
    html = run.page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") + html.count("data:image/webp;base64,") >= 6
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    for stage in run.results:
        assert stage in html


def test_the_same_work_gives_the_same_artifacts_elsewhere(run, tmp_path):
    other = Workspace.open(home=tmp_path / "home", store=str(tmp_path / "store"), processes=0)
    again = run_recipe(plan(other), other)
    assert {n: r.digest for n, r in again.results.items()} == {n: r.digest for n, r in run.results.items()}
    assert {n: r.metrics for n, r in again.results.items()} == {n: r.metrics for n, r in run.results.items()}


def test_a_forced_stage_with_the_same_outcome_runs_alone(run, workspace):
    forced = plan(workspace, Selection(force=("base_index",)))
    done = run_recipe(forced, workspace)
    assert [name for name, result in done.results.items() if result.state == "built"] == ["base_index"]


def test_nothing_of_this_machine_is_in_an_artifact(run, workspace):
    for name in run.results:
        for path in Path(run.artifact(name).path).rglob("*"):
            if path.is_file():
                assert str(workspace.home).encode() not in path.read_bytes(), (name, path.name)
