"""VLPart's recipes as they are planned and, made small, run to their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.plan import Selection, make_plan
from pipelines.run import run_recipe
from pipelines.train import Params
from pipelines.workspace import Workspace
from tests.pipelines.recipes import VLPART as RECIPES
from tests.pipelines.recipes import recipe


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_is_the_same_graph_from_made_up_files(name: str) -> None:
    full, smoke = recipe(name), recipe(name, "smoke")
    assert set(smoke.stages) == set(full.stages)
    for stage, needs in full.needs.items():
        trained = ("pascal_part",) if stage == "dino" else ()  # where there is no file, on images of the run
        assert smoke.needs[stage] == needs + trained
    for stage in smoke.stages.values():
        if stage.kind.name == "acquire":
            assert stage.params.raw_files() is None
        if stage.kind.name in ("vocabulary", "pretrained"):
            assert stage.params.raw_source() is None  # nothing to download
        if isinstance(stage.params, Params):
            assert stage.params.schedule.iterations <= 20
            assert len(stage.params.model.roi.cascade) == (2 if stage.name.startswith("swinb") else 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_plan_says_what_is_missing_and_what_it_costs(name: str, tmp_path: Path) -> None:
    workspace = Workspace.open(home=tmp_path, store=str(tmp_path / "store"))
    plan = make_plan(recipe(name), workspace, Selection())
    for row in plan.rows:
        assert row.state == ("run" if row.stage == "texts" else "blocked")
        if row.kind == "train":
            assert row.cost
            assert row.cost.endswith("on 8 V100")
    assert not workspace.raw
    smoke = make_plan(recipe(name, "smoke"), workspace, Selection())
    assert {row.state for row in smoke.rows} == {"run"}


RUNS = {
    "vlpart_r50_lvis": ["r50_lvis"],  # federated, repeated images, nothing to evaluate
    "vlpart_swinb_partimagenet": ["swinb_partimagenet"],  # a cascade
    "vlpart_cross_category": ["r50_base", "r50_base_voc", "r50_base_s20_label", "r50_base_s20_parsed"],
    "vlpart_cross_dataset_1": ["r50_pascal_s11_parsed"],  # parts written by another dataset's names
}
LONGER = {
    "vlpart_cross_dataset_2": ["r50_joint_star", "r50_star_s11_parsed"],
    "vlpart_r50": ["r50_joint", "r50_joint_star", "r50_joint_star2", "r50_in_label", "r50_in_parsed"],
    "vlpart_swinb": [
        "swinb_joint",
        "swinb_joint_star",
        "swinb_joint_star2",
        "swinb_in_label",
        "swinb_in_parsed",
    ],
}


@pytest.mark.parametrize("name", [*RUNS, *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)])
def test_smoke_runs_to_its_end(name: str, tmp_path: Path) -> None:
    workspace = Workspace.open(home=tmp_path, store=str(tmp_path / "store"), processes=0, workers=1)
    run = run_recipe(make_plan(recipe(name, "smoke"), workspace, Selection()), workspace)
    # The store was empty; both backbones are the same tiny one here, which is made once.
    twins = {"swin_b"} if "resnet50" in run.results else set()
    assert {name for name, result in run.results.items() if result.state != "built"} <= twins
    for stage in (RUNS | LONGER)[name]:
        assert (run.artifact(stage).path / "model.safetensors").is_file()
    evaluated = [result for stage, result in run.results.items() if "_on_" in stage]
    assert all("segm/AP50" in result.metrics for result in evaluated)
    assert make_plan(recipe(name, "smoke"), workspace, Selection()).idle
