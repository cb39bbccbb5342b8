"""The recipe ``prepare``: every dataset, from made-up raw files to the layout."""

from __future__ import annotations

from pathlib import Path

from partseg.datasets.catalogue import SOURCES
from partseg.layout import Dataset
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace


def test_every_source_becomes_a_dataset(tmp_path: Path) -> None:
    recipe = load_recipe("prepare", profile="smoke")
    workspace = Workspace.open(home=tmp_path, store=str(tmp_path / "store"))
    run = run_recipe(make_plan(recipe, workspace, Selection()), workspace)
    converted = [result.stage for result in run.results.values() if not result.stage.startswith("raw_")]
    datasets = [Dataset.open(run.artifact(stage).path) for stage in converted]
    own = {"coco_json", "imagenet_folder"}  # no publisher, nothing to prepare
    assert {dataset.manifest.name for dataset in datasets} == set(SOURCES) - own
    assert all(entry.images.rows for dataset in datasets for entry in dataset.manifest.splits.values())
