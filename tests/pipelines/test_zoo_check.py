"""`partseg zoo check` of a row whose detector finds boxes only, and what `gc` keeps of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from partseg.cli import main
from partseg.errors import RecipeError
from partseg.evaluation.instance_run import run as match_all
from partseg.evaluation.predictions import read_predictions
from partseg.evaluation.protocols import PROTOCOLS, instance_state
from partseg.models.checkpoints import export_vlpart
from partseg.models.config import ModelConfig
from partseg.models.vlpart import build_model
from pipelines.evaluate import PREDICTIONS
from pipelines.inputs import open_dataset
from pipelines.plan import Plan, make_plan
from pipelines.roots import recipe_roots
from pipelines.run import run_recipe
from pipelines.train import Params
from pipelines.workspace import Workspace
from pipelines.zoo_check import last_check
from tests.pipelines.recipes import recipe

ROW, STAGE, EVALUATION = "r50_specific_voc", "r50_voc", "r50_voc_on_voc2007"
LABEL = f"zoo-check-{ROW}@smoke"


def weights(path: Path, *, masks: bool, seed: int = 0) -> Path:
    """Random weights of the row's detector, as its training makes it small."""
    training = recipe("vlpart_r50_voc", "smoke").stages[STAGE].params
    assert isinstance(training, Params)
    assert not training.model.roi.masks
    settings = training.model.model_dump()
    settings["roi"]["masks"] = masks
    torch.manual_seed(seed)
    export_vlpart(build_model(ModelConfig.model_validate(settings)), path)
    return path


class Check:
    """A home folder in which weights are checked."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        monkeypatch.setenv("PARTSEG_HOME", str(home))
        monkeypatch.delenv("PARTSEG_STORE", raising=False)
        self.monkeypatch = monkeypatch

    def __call__(self, file: Path, *arguments: str) -> int:
        words = ["zoo", "check", ROW, "--profile", "smoke", "--weights", str(file), "--workers", "0"]
        self.monkeypatch.setattr(sys, "argv", ["partseg", *words, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(home=self.home, store=str(self.home / "store"), processes=0)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A check that was made once, and what it said."""
    folder = tmp_path_factory.mktemp("check")
    file = weights(folder / "r50_voc.pth", masks=False)
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.MonkeyPatch.context() as output:
        said: list[str] = []
        output.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        assert Check(folder / "home", monkeypatch)(file, "--json") == 0
    return SimpleNamespace(folder=folder, file=file, answer=json.loads(said[-1]))


def again(place: Workspace) -> Plan:
    """The check as it would be made now, without the folder of the weights."""
    made = last_check(LABEL, place.store)
    assert made is not None
    return make_plan(made, place)


@pytest.fixture
def check(checked: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Check:
    return Check(checked.folder / "home", monkeypatch)


def test_boxes_without_masks_get_the_rows_numbers(checked: SimpleNamespace, check: Check) -> None:
    assert checked.answer["state"] == "done"
    numbers = {number["measure"]: number["reproduced"] for number in checked.answer["numbers"]}
    assert set(numbers) == {"bbox/AP", "bbox/AP50"}
    assert None not in numbers.values()


def test_masks_that_nobody_finds_are_refused_before_anything_is_predicted(check: Check) -> None:
    place = check.workspace
    made = last_check(LABEL, place.store)
    assert made is not None
    stage = made.stages[EVALUATION]
    masks = stage.params.model_copy(update={"protocol": "coco", "overlap": ("segm",)})
    changed = replace(made, stages={**made.stages, EVALUATION: replace(stage, params=masks)})
    with pytest.raises(RecipeError, match=r"finds boxes without masks; give overlap: \[bbox\]"):
        run_recipe(make_plan(changed, place), place)


def test_boxes_are_scored_by_cocos_rules_too(check: Check) -> None:
    place = check.workspace
    run = run_recipe(again(place), place)
    predictions = read_predictions(run.artifact(EVALUATION).path / PREDICTIONS)
    assert len(predictions)
    assert set(predictions.rles) == {None}
    dataset = open_dataset(run.artifact("voc2007"))
    ids = [category.category_id for category in dataset.categories if category.kind == "object"]
    state = instance_state(PROTOCOLS["coco"], dataset, "val", iou_type="bbox", category_ids=ids)
    assert match_all(state, dataset.split("val"), predictions).result().metrics()["bbox/AP"] is not None


def test_weights_with_a_mask_head_are_another_detectors(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(weights(tmp_path / "full.pth", masks=True)) == 2
    said = capsys.readouterr().err
    assert "the tensors do not fit the model" in said
    assert "roi_heads.mask_head" in said


def test_gc_knows_what_a_check_was_made_of(
    check: Check, checked: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = check.workspace
    plan = again(place)
    assert plan.idle
    keys = {row.stage: str(row.key) for row in plan.rows}
    assert keys == {name: place.store.ref(LABEL, name) for name in plan.recipe.stages}

    # The last artifact is that of an exception now; what the row asks for stays.
    assert check(checked.file, "--set", f"{EVALUATION}.inference.detections=5") == 0
    last = place.store.ref(LABEL, EVALUATION)
    assert last not in (None, keys[EVALUATION])
    name = LABEL.partition("@")[0]
    for keep in (None, [LABEL], [name]):
        assert recipe_roots(place, keep) >= {*keys.values(), last}
    # The recipe of the row shares the datasets, and not the evaluation of somebody's weights.
    assert not recipe_roots(place, ["vlpart_r50_voc@smoke"]) & {keys[EVALUATION], last, keys[STAGE]}
    with pytest.raises(RecipeError, match=r"no recipe called zoo-check-r50_specific_coco.*did you mean"):
        recipe_roots(place, ["zoo-check-r50_specific_coco"])

    # Other weights: then nobody needs the first ones any more.
    other = weights(tmp_path / "other.pth", masks=False, seed=1)
    assert check(other) == 0
    roots = recipe_roots(place)
    assert keys[EVALUATION] not in roots
    assert keys["voc2007"] in roots
    assert again(place).row(EVALUATION).key in roots


def test_what_is_no_check_has_no_recipe_of_one(check: Check) -> None:
    store = check.workspace.store
    for label in ("vlpart_r50_voc", "zoo-check-none", f"zoo-check-{ROW}", f"zoo-check-{ROW}@none"):
        assert last_check(label, store) is None
    # A profile that is no more.
    key = store.ref(LABEL, STAGE)
    assert key is not None
    store.set_ref(f"zoo-check-{ROW}@gone", STAGE, key)
    assert last_check(f"zoo-check-{ROW}@gone", store) is None
