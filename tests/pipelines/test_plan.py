from __future__ import annotations

import json

import pytest

from partseg.errors import MissingArtifact, RecipeError

ALL = ("one", "two", "sum", "bit", "last")


def test_first_everything_runs_then_everything_is_cached(bench):
    assert set(bench.states().values()) == {"run"}
    assert bench.plan().row("one").why == ("never built",)
    bench.run()
    plan = bench.plan()
    assert plan.idle
    assert {row.state for row in plan.rows} == {"cached"}


def test_one_changed_parameter_runs_its_stage_and_names_it(bench):
    bench.run()
    plan = bench.plan(set={"one.schedule.max_iter": 200})
    assert {row.stage: row.state for row in plan.rows} == {
        "one": "run",
        "two": "cached",
        "sum": "maybe",
        "bit": "maybe",
        "last": "maybe",
    }
    assert plan.row("one").why == ("params.schedule.max_iter: 100 -> 200",)
    assert plan.row("sum").why == ("depends on the output of one",)


def test_a_stage_whose_own_parameter_changes_below_another_says_both(bench):
    bench.run()
    row = bench.plan(set={"one.value": 5, "sum.plus": 1}).row("sum")
    assert row.state == "run"
    assert row.why == ("params.plus: 0 -> 1", "depends on the output of one")


def test_a_changed_input_is_named_by_its_stage(bench):
    bench.run()
    bench.run(set={"one.value": 5}, only=("one",))
    row = bench.plan(set={"one.value": 5}, until=("sum",)).row("sum")
    assert (row.state, row.why) == ("run", ("input one changed",))


def test_a_new_version_of_a_kind_is_a_reason(bench, monkeypatch):
    bench.run()
    monkeypatch.setattr("tests.pipelines.fakes.add.VERSION", "2")
    assert bench.plan().row("sum").why == ("version: 1 -> 2",)


def test_renaming_a_stage_keeps_its_artifact(bench):
    bench.run()
    text = bench.path.read_text().replace("one", "first")
    bench.write("recipes/work.yaml", text)
    assert bench.plan().idle


def test_formatting_and_comments_change_nothing(bench):
    bench.run()
    bench.write(
        "recipes/work.yaml", "# hello\n" + bench.path.read_text().replace("{kind: add, ", "{ kind:  add, ")
    )
    assert bench.plan().idle


def test_early_cut_off_keeps_what_comes_after(bench):
    bench.run()
    outcomes = bench.outcomes(set={"one.value": 3})  # the sum changes, its parity does not
    assert outcomes == {"one": "built", "two": "cached", "sum": "built", "bit": "built", "last": "cached"}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"only": ("sum",)}, "-- c --"),
        ({"from_": ("sum",)}, "-- r rr"),
        ({"until": ("sum",)}, "cc c --"),
        ({"force": ("sum",)}, "cc r mm"),
        ({"force": ("sum",), "downstream": True}, "cc r rr"),
        ({"force": ("sum",), "only": ("sum",)}, "-- r --"),
        ({"from_": ("sum",), "until": ("bit",)}, "-- r r-"),
    ],
)
def test_selections(bench, selection, expected):
    bench.run()
    letters = {"cached": "c", "run": "r", "maybe": "m", "skipped": "-"}
    states = bench.states(**selection)
    assert "".join(letters[states[name]] for name in ALL) == expected.replace(" ", "")


def test_what_is_planned_is_what_runs(bench):
    bench.run()
    built = {name for name, state in bench.outcomes(from_=("sum",)).items() if state == "built"}
    assert built == {"sum", "bit", "last"}
    built = {name for name, state in bench.outcomes(force=("sum",)).items() if state == "built"}
    assert built == {"sum"}


def test_only_without_its_inputs_names_the_missing_artifact(bench):
    with pytest.raises(MissingArtifact, match="sum needs the artifact of one, which is not in the store"):
        bench.plan(only=("sum",))


def test_only_works_when_what_its_inputs_were_made_from_is_gone(bench):
    run = bench.run()
    bench.workspace().store.remove(run.results["one"].key)
    assert bench.outcomes(only=("bit",), force=("bit",))["bit"] == "built"


def test_an_unknown_stage_in_a_selection_is_an_error_with_a_suggestion(bench):
    with pytest.raises(RecipeError, match=r"there is no stage summ; did you mean sum?"):
        bench.plan(force=("summ",))


def test_a_damaged_artifact_is_planned_to_run_and_says_what_is_missing(bench):
    run = bench.run()
    store = bench.workspace().store
    entry = store.tree(run.results["two"].digest).entries[0]
    store.files.local_path(f"blobs/{entry.sha256[:2]}/{entry.sha256}").unlink()
    row = bench.plan().row("two")
    assert row.state == "run"
    assert "number.txt: its blob" in row.why[0]
    assert bench.outcomes()["two"] == "built"


def test_a_removed_artifact_is_built_again(bench):
    run = bench.run()
    bench.workspace().store.remove(run.results["two"].key)
    row = bench.plan().row("two")
    assert (row.state, row.why) == ("run", ("its artifact was removed from the store",))


def test_the_plan_as_json_carries_cost_and_size(bench):
    bench.write(
        "recipes/work.yaml", bench.path.read_text() + "published: {sum: {cost: 3 GPU days, AP: 1.5}}\n"
    )
    bench.run()
    data = json.loads(json.dumps(bench.plan().as_json()))
    row = next(row for row in data["stages"] if row["stage"] == "sum")
    assert (row["cost"], row["size"], row["state"]) == ("3 GPU days", 1, "cached")


def test_another_recipe_shares_artifacts(bench):
    bench.run()
    bench.write(
        "recipes/other.yaml", "stages: {x: {kind: numbers, value: 1}, y: {kind: add, of: [x, x], plus: 3}}"
    )
    assert bench.states(name="other") == {"x": "cached", "y": "run"}
