from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from partseg.cli import bench
from partseg.errors import LayoutError, MissingArtifact, PartsegError, RecipeError, TrainingError
from partseg.layout import Dataset
from partseg.models.config import ModelConfig, load_config
from partseg.training import step_times
from partseg.training.config import AugmentConfig, ScheduleConfig, TrainConfig
from partseg.training.job import Job, JobSource, write_job
from pipelines.plan import Selection, make_plan
from pipelines.recipe import CONFIGS, load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace
from tests.training.conftest import write_photos

RECIPE = """
stages:
  raw: {kind: acquire, source: pascal_part, synthetic: {train: 3, val: 1, size: 64}}
  parts: {kind: convert, raw: raw}
  texts: {kind: vocabulary, data: [parts], encoder: "offline:128"}
  base:
    kind: train
    model: {include: models/tiny.yaml}
    vocabulary: texts
    data: [{from: parts, batch_size: 1, augment: {short_sides: [40], sampling: choice, strong: true}}]
    schedule: {iterations: 4}
"""

app = typer.Typer()
app.add_typer(bench.app, name="bench")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_photos(tmp_path_factory.mktemp("photos"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=True)


def test_a_dataset_is_measured_and_drawn(photos: Dataset, tmp_path: Path) -> None:
    picture = tmp_path / "data.svg"
    found = run(
        "data", photos.folder, "--raw", photos.image_root, "--workers", "0", "--images", 3, "--out", picture
    )
    assert found.exit_code == 0, found.output
    assert "boxes and masks" in found.stdout
    assert "strong" not in found.stdout  # nothing is strongly changed here
    texts = {element.text for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {"one process", "0 workers", "read", "target", "ms per image"} <= texts


def test_a_training_s_job_is_measured_with_its_own_images(photos: Dataset, tmp_path: Path) -> None:
    strong = AugmentConfig(short_sides=(32,), sampling="choice", strong=True)
    item = JobSource(
        dataset=photos.folder, images=photos.image_root or Path(), names=("dog",), augment=strong
    )
    job = Job(
        train=TrainConfig(
            model=load_config(CONFIGS / "models" / "tiny.yaml"), schedule=ScheduleConfig(iterations=1)
        ),
        sources=(item,),
        embeddings=tmp_path / "e",
        out=tmp_path / "out",
        work=tmp_path / "work",
        cache=tmp_path / "cache",
    )
    write_job(tmp_path / "job.json", job)
    found = run("data", "--job", tmp_path / "job.json", "--workers", "0,1", "--images", 2, "--json")
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout)
    assert [entry["workers"] for entry in content["loader"]] == [0, 1]
    assert all(entry["images_per_second"] > 0 for entry in content["loader"])
    if sys.platform == "linux":
        assert 1 << 20 < content["loader"][1]["worker_memory"] < 1 << 29
    assert set(content["seconds_per_image"]) == {"read", "resize", "strong", "target", "collate", "unfold"}
    assert all(seconds > 0 for seconds in content["seconds_per_image"].values())


def test_a_recipe_s_training_is_measured_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    workspace = Workspace.open()
    run_recipe(make_plan(load_recipe(str(recipe)), workspace, Selection(until=("texts",))), workspace)
    found = run("data", "--recipe", recipe, "--stage", "base", "--workers", 0, "--images", 2, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["seconds_per_image"]["strong"] > 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["data", "--workers", "many"], PartsegError, "--workers many is not understood"),
        (["data", "--workers", "-1"], PartsegError, "--workers -1 is not understood"),
        (["data", "x", "--job", "y"], PartsegError, "several things to read"),
        (["data", "--recipe", "demo"], RecipeError, "a train stage is named by two options"),
        (["data", "--recipe", "demo", "--stage", "texts"], RecipeError, "no stage texts that trains"),
        (
            ["data", "--recipe", "demo", "--stage", "base", "--store", "empty"],
            MissingArtifact,
            "not in the store",
        ),
        (["data", "nowhere"], LayoutError, "nowhere"),
        (["data", "--job", "nowhere.json"], TrainingError, "the job file cannot be read"),
        (["train", "--model", "nope"], RecipeError, "the model file cannot be read"),
        (["train", "--amp", "fp8"], PartsegError, "--amp fp8 is not understood"),
    ],
)
def test_mistakes_are_named(arguments: list[str], error: type[Exception], text: str) -> None:
    found = run(*arguments)
    assert isinstance(found.exception, error)
    assert text in str(found.exception)


def test_the_parts_of_a_step_are_compared_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def measured(config: ModelConfig, **options: Any) -> Any:
        asked.append((config, options))
        faster = 2 if options["amp"] == "bf16" else 1
        return SimpleNamespace(
            data=0.01, forward=0.1 / faster, backward=0.2 / faster, optimiser=0.03, peak_memory=None
        )

    monkeypatch.setattr(step_times, "measure_steps", measured)
    out = tmp_path / "step.svg"
    found = run("train", "--images", 4, "--side", 64, "--steps", 2, "--amp", "none,bf16", "--out", out)
    assert found.exit_code == 0, found.output
    assert [options["amp"] for _, options in asked] == ["none", "bf16"]
    assert asked[0][1] == {
        "images": 4, "side": 64, "steps": 2, "amp": "none", "compile": False, "recompute": False
    }  # fmt: skip
    assert "340.0" in found.stdout
    assert "190.0" in found.stdout
    bars = [float(rect.get("width", 0)) for rect in ET.parse(out).iter("{http://www.w3.org/2000/svg}rect")]
    forward, backward = bars[6], bars[7]
    assert backward == pytest.approx(2 * forward, abs=0.2)


def test_a_real_step_is_measured() -> None:
    found = run("train", "--images", 1, "--side", 64, "--steps", 1, "--json")
    assert found.exit_code == 0, found.output
    (row,) = json.loads(found.stdout)
    assert min(row["forward"], row["backward"], row["optimiser"]) > 0
    assert row["peak_memory"] > 1 << 20


def test_the_help_needs_no_torch() -> None:
    script = "import sys, partseg.cli.bench, partseg.cli.bench_recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
