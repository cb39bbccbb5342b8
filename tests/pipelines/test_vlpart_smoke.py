"""VLPart's recipes as they are planned and, made small, run to their end.

All runs share a store, as members of a team do: what one made, the next finds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from partseg.cli import main
from pipelines.evaluate import Params as EvaluateParams
from pipelines.plan import Selection, make_plan
from pipelines.run import Run, run_recipe
from pipelines.train import Params
from pipelines.workspace import Workspace
from pipelines.zoo import read_zoo
from pipelines.zoo_state import covered_rows, zoo_states
from tests.pipelines.recipes import VLPART as RECIPES
from tests.pipelines.recipes import recipe

ZOO = read_zoo("vlpart")
QUICK = (
    "vlpart_swinb_partimagenet",  # a cascade
    "vlpart_r50_lvis",  # federated, repeated images, evaluated on minival
    "vlpart_cross_dataset_1",  # labels of images, and parts written by another dataset's names
)
LONGER = [name for name in RECIPES if name not in QUICK]
CHECKED = "swinbase_specific_partimagenet"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


def workspace(home: Path) -> Workspace:
    return Workspace.open(home=home, store=str(home / "store"), processes=0)


def smoke(name: str, home: Path) -> Run:
    place = workspace(home)
    return run_recipe(make_plan(recipe(name, "smoke"), place, Selection()), place)


def test_smoke_is_the_same_graph_from_made_up_files() -> None:
    """Of all stages there are: those of the other recipes are the same, as test_vlpart_recipes says."""
    full, small = recipe("vlpart"), recipe("vlpart", "smoke")
    assert set(small.stages) == set(full.stages)
    for stage, needs in full.needs.items():
        trained = ("pascal_part",) if stage == "dino" else ()  # where there is no file, on images of the run
        assert small.needs[stage] == needs + trained
    for stage in small.stages.values():
        if stage.kind.name == "acquire":
            assert stage.params.raw_files() is None
        if stage.kind.name in ("vocabulary", "pretrained"):
            assert stage.params.raw_source() is None  # nothing to download
        if isinstance(stage.params, Params):
            assert stage.params.schedule.iterations <= 20
            assert len(stage.params.model.roi.cascade) == (2 if stage.name.startswith("swinb") else 0)
        if isinstance(stage.params, EvaluateParams):
            assert stage.params.inference is not None
            assert stage.params.inference.long_side <= 96
            same = full.stages[stage.name].params.model_copy(update={"inference": None})
            assert stage.params.model_copy(update={"inference": None}) == same


@pytest.mark.parametrize("name", ["vlpart", *QUICK])
def test_a_plan_says_what_is_missing_and_what_it_costs(name: str, tmp_path: Path) -> None:
    place = Workspace.open(home=tmp_path, store=str(tmp_path / "store"))
    plan = make_plan(recipe(name), place, Selection())
    for row in plan.rows:
        assert row.state == ("run" if row.stage == "texts" else "blocked")
        if row.kind == "train":
            assert row.cost
            assert row.cost.endswith("on 8 V100")
    assert not place.raw
    small = make_plan(recipe(name, "smoke"), place, Selection())
    assert {row.state for row in small.rows} == {"run"}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)])
def test_smoke_runs_to_its_end(name: str, home: Path) -> None:
    run = smoke(name, home)
    for stage in run.plan.recipe.stages.values():
        if isinstance(stage.params, Params):
            assert (run.artifact(stage.name).path / "model.safetensors").is_file()
    place = workspace(home)
    assert make_plan(recipe(name, "smoke"), place, Selection()).idle
    rows = {state.row.id: state for state in zoo_states(ZOO, place.store, profile="smoke")}
    covered = covered_rows(ZOO, run.plan.recipe)
    assert covered
    page = run.page.read_text() if run.page else ""
    for row in covered:
        assert rows[row.id].state == "done"
        assert row.id in page
        for number in rows[row.id].numbers:
            # Every headline number is one that the evaluation has under that name; the made-up world has no
            # rare class, and of other classes only some.
            if not number.measure.endswith("/APr") and number.measure.count("/") == 1:
                assert number.reproduced is not None, (row.id, number.measure)
                assert None not in number.maybe.values(), (row.id, number.maybe)


def command(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> int:
    monkeypatch.setenv("PARTSEG_HOME", str(home))
    monkeypatch.delenv("PARTSEG_STORE", raising=False)
    monkeypatch.setattr(sys, "argv", ["partseg", "zoo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_checking_the_weights_of_a_run_gives_its_numbers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row evaluated with the file that a training of it wrote: the same predictions and artifact."""
    from partseg.models.checkpoints import export_vlpart
    from partseg.models.files import load_model

    run = smoke("vlpart_swinb_partimagenet", home)
    file = tmp_path / "released.pth"
    export_vlpart(load_model(run.artifact("swinb_partimagenet").path), file)
    arguments = ("check", CHECKED, "--profile", "smoke", "--weights", str(file), "--workers", "0")
    capsys.readouterr()
    assert command(monkeypatch, home, *arguments, "--plan") == 0
    planned = capsys.readouterr().out
    assert "pretrained" in planned
    assert "train" not in planned.replace("pretrained", "")
    assert command(monkeypatch, home, *arguments, "--json") == 0
    checked = json.loads(capsys.readouterr().out)
    (ours,) = [
        state for state in zoo_states(ZOO, workspace(home).store, profile="smoke") if state.row.id == CHECKED
    ]
    assert checked["state"] == "done"
    assert checked["weights"] == str(file)
    assert checked["numbers"] == ours.as_json()["numbers"]
    store = workspace(home).store
    keys = [
        store.ref(label, "swinb_partimagenet_on_partimagenet")
        for label in ("vlpart_swinb_partimagenet@smoke", f"zoo-check-{CHECKED}@smoke")
    ]
    trees = [action.tree for key in keys if key is not None and (action := store.action(key)) is not None]
    assert len(set(keys)) == 2
    assert len(trees) == 2
    assert trees[0] == trees[1]
    assert command(monkeypatch, home, *arguments) == 0  # again: from the store
    assert "cached" in capsys.readouterr().out

    other = ("check", "r50_specific_partimagenet", "--profile", "smoke", "--weights", str(file))
    assert command(monkeypatch, home, *other) == 2
    assert "the tensors do not fit the model" in capsys.readouterr().err
