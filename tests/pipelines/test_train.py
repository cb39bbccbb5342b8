"""The train stage and what it can start from, on a world of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from partseg.errors import RecipeError, TrainingError, WeightsError
from partseg.layout import Category
from pipelines.inputs import chosen
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.watch import Unwatched
from pipelines.workspace import Workspace

RECIPE = """
every:
  train:
    model: {include: models/tiny.yaml}
    vocabulary: texts
    data: [{from: parts, batch_size: 2}]
    augment: {short_sides: [64], sampling: choice}
    schedule: {iterations: 4, batches: 2, warmup: 1, learning_rate: 1e-3, gradient_clip: 5}
    checkpoint_every: 2
    log_every: 1
stages:
  raw: {kind: acquire, source: pascal_part, synthetic: {seed: 0, train: 8, val: 3, size: 64}}
  parts: {kind: convert, raw: raw}
  texts: {kind: vocabulary, data: [parts], encoder: "offline:128"}
"""


class World:
    """A home folder, and a recipe that stages are added to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, stages: str, *, only=None, watcher=None, profile=None, raw=None, **launch):
        path = self.folder / "w.yaml"
        path.write_text(RECIPE + stages)
        workspace = Workspace.open(home=self.folder / "home", raw=raw, **{"processes": 0, **launch})
        plan = make_plan(load_recipe(str(path), profile=profile), workspace, Selection(force=only or ()))
        return run_recipe(plan, workspace, watcher=watcher)


BASE = "  base: {kind: train}\n"


class Listener(Unwatched):
    """Keeps what it hears; may stop the run at an iteration."""

    def __init__(self, stop_at: int | None = None, on_log=None) -> None:
        self.stop_at, self.on_log = stop_at, on_log
        self.lines: list[str] = []
        self.steps: list[int] = []

    def progress(self, stage, done, total, message):
        if stage != "base":
            return
        self.steps.append(done)
        if self.stop_at is not None and done >= self.stop_at:
            raise KeyboardInterrupt

    def log(self, stage, message):
        self.lines.append(message)
        if self.on_log is not None:
            self.on_log(message)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world):
    return world.run(BASE).results["base"]


def test_a_process_of_its_own_gives_the_same_bytes_and_the_run_loads_no_torch(world, undisturbed):
    (world.folder / "w.yaml").write_text(RECIPE + BASE)
    code = (
        "import sys\nsys.argv = 'partseg run w.yaml --force base --processes 1 --no-prefect'.split()\n"
        "from partseg.cli import main\ntry: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'timm', 'prefect'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PARTSEG_HOME": str(world.folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=world.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
    run = world.run(BASE)
    assert run.results["base"].state == "cached"
    assert run.results["base"].digest == undisturbed.digest
    assert run.results["base"].metrics == undisturbed.metrics
    newest = max((world.folder / "home/runs").glob("*/base"), key=lambda path: path.stat().st_mtime)
    assert {"train.log", "throughput.jsonl"} <= {path.name for path in newest.iterdir()}
    assert not list((world.folder / "home/work").iterdir())
    files = {path.name for path in run.artifact("base").path.iterdir()}
    assert files == {"model.safetensors", "model.json", "metrics.jsonl"}


@pytest.mark.slow  # tests/training/test_distributed.py compares them step by step in the ordinary suite
def test_two_processes_differ_by_rounding(world, undisturbed):
    run = world.run(BASE, only=("base",), processes=2)
    store = run.store
    one, two = (
        load_file(store.materialise(str(digest)) / "model.safetensors")
        for digest in (undisturbed.digest, run.results["base"].digest)
    )
    assert max((one[name].double() - two[name].double()).abs().max() for name in one) < 1e-3
    assert run.results["base"].metrics["loss"] == pytest.approx(undisturbed.metrics["loss"], rel=1e-3)


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stopped_training_goes_on_where_it_was(tmp_path, undisturbed, processes, monkeypatch):
    monkeypatch.setattr("pipelines.watch.PROGRESS_INTERVAL", 0.0)
    world = World(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        world.run(BASE, watcher=Listener(stop_at=3), processes=processes)
    heard = Listener()
    run = world.run(BASE, watcher=heard, processes=processes)
    assert any("going on from iteration" in line for line in heard.lines)
    assert min(heard.steps) > 2
    assert run.results["base"].digest == undisturbed.digest


def test_an_error_in_the_training_process_arrives_as_it_was(world):
    stages = BASE.replace("}", ", model: {text_dim: 64}}")
    with pytest.raises(TrainingError, match="the embeddings have 128 dimensions, the model wants 64"):
        world.run(stages, processes=1)


def test_batches_that_processes_cannot_share_are_told_before_anything_starts(world):
    with pytest.raises(TrainingError, match="2 batches of an update cannot be shared by 3 processes"):
        world.run(BASE, only=("base",), processes=3)


@pytest.mark.slow
def test_two_machines(world, undisturbed):
    others: list[subprocess.Popen[bytes]] = []

    def start_other(message):
        if "NODE being 1: " in message:
            command = message.partition("NODE being 1: ")[2].replace(" NODE ", " 1 ")
            others.append(subprocess.Popen(["bash", "-c", command], stdout=subprocess.DEVNULL))

    heard = Listener(on_log=start_other)
    run = world.run(BASE, only=("base",), watcher=heard, processes=1, nodes=2, rendezvous="127.0.0.1:29871")
    assert [other.wait(timeout=60) for other in others] == [0]
    assert run.results["base"].metrics["loss"] == pytest.approx(undisturbed.metrics["loss"], rel=1e-3)


def test_all_parameters_reach_the_training(world):
    run = world.run(
        """
  base:
    kind: train
    data:
      - {from: parts, kind: all, batch_size: 1, repeat_threshold: 0.5, keep_empty: true,
         augment: {short_sides: [48], sampling: choice}}
    order: epochs
    validation: {from: parts, kind: all, every: 2, images: 2}
    select: best
    recompute: false
    schedule: {iterations: 4, batches: 1, ema: 0.5}
"""
    )
    assert "validation/segm/AP" in json.dumps(dict(run.results["base"].metrics))
    names = json.loads((run.artifact("base").path / "model.json").read_text())["vocabulary"]["names"]
    assert any(":" in name for name in names)
    assert any(":" not in name for name in names)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{kind: train, init: base, backbone: base}", "give init, a whole detector, or backbone"),
        ("{kind: train, select: best}", "select: best is measured by a validation"),
        (
            "{kind: train, model: {roi: {masks: false}}, validation: {from: parts, every: 1}}",
            "a validation measures AP of masks",
        ),
        ("{kind: train, order: epochs, data: [{from: parts}, {from: parts}]}", "goes through one dataset"),
        ("{kind: train, data: [{from: parts, annotation: image, keep_empty: true}]}", "keep_empty"),
        ("{kind: pretrained, backbone: {name: resnet50}}", "give either weights, .* or a seed"),
        ("{kind: pretrained, backbone: {name: a}, weights: b, seed: 1}", "give either weights, .* or a seed"),
        ("{kind: pretrained, seed: 1}", "random weights are for a backbone or a detector"),
        (
            "{kind: pretrained, backbone: {name: a}, detector: {backbone: {name: a}}, seed: 1}",
            "either backbone or detector",
        ),
        ("{kind: pretrained, backbone: {name: a}, seed: 1, vit: {dim: 24}}", "vit is of the descriptors'"),
    ],
)
def test_parameters_that_contradict_each_other(world, stage, message):
    with pytest.raises(RecipeError, match=message):
        world.run(BASE + f"  other: {stage}\n")


def test_both_kinds_of_categories_can_be_classes():
    categories = [
        Category(category_id=1, name="dog", kind="object", group="base"),
        Category(category_id=2, name="dog:head", kind="part", parent_id=1, group="novel"),
        Category(category_id=3, name="sky", kind="stuff"),
    ]
    assert [c.name for c in chosen(categories, kind="all")] == ["dog", "dog:head"]
    assert [c.name for c in chosen(categories, kind="all", group="novel")] == ["dog:head"]
    with pytest.raises(RecipeError, match="no object or part categories of group novel"):
        chosen(categories[:1], kind="all", group="novel")


class TestPretrained:
    BACKBONE = "backbone: {name: test_byobnet, norm: batch, frozen_stages: 0}"

    def test_random_weights_of_a_backbone_say_so_and_are_where_a_training_starts(self, world):
        heard = Listener()
        run = world.run(
            f"  start: {{kind: pretrained, {self.BACKBONE}, seed: 5}}\n"
            "  base: {kind: train, backbone: start, schedule: {iterations: 1, learning_rate: 1e-12}}\n",
            watcher=heard,
        )
        assert any("random weights for test_byobnet" in line for line in heard.lines)
        start = load_file(run.artifact("start").path / "backbone.safetensors")
        model = load_file(run.artifact("base").path / "model.safetensors")
        trained = {name.removeprefix("backbone.bottom_up.base."): value for name, value in model.items()}
        weights = [name for name in start if name.endswith("conv.weight")]
        assert weights
        for name in weights:
            assert torch.allclose(start[name], trained[name], atol=1e-6), name

    def test_a_file_of_a_backbone(self, world, tmp_path):
        made = world.run(f"  start: {{kind: pretrained, {self.BACKBONE}, seed: 6}}\n")
        tensors = load_file(made.artifact("start").path / "backbone.safetensors")
        save_file(tensors, tmp_path / "published.safetensors")
        stages = f"  start: {{kind: pretrained, {self.BACKBONE}, weights: published.safetensors}}\n"
        run = world.run(stages, raw={"weights": tmp_path})
        assert run.artifact("start").digest == made.artifact("start").digest
        save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "published.safetensors")
        with pytest.raises(WeightsError, match=r"published\.safetensors: the tensors do not fit"):
            world.run(stages, raw={"weights": tmp_path})

    def test_a_detector_from_a_file_is_where_a_training_starts(self, world, undisturbed, tmp_path):
        from partseg.models.checkpoints import export_vlpart, load_any

        run = world.run(BASE)
        loaded = load_any(run.artifact("base").path)
        export_vlpart(loaded.model, tmp_path / "released.pth")
        stages = (
            "  released: {kind: pretrained, detector: {include: models/tiny.yaml}, weights: released.pth}\n"
            "  tuned: {kind: train, init: released}\n"
            "  measured: {kind: evaluate, weights: released, vocabulary: texts, data: parts}\n"
        )
        run = world.run(BASE + stages, raw={"weights": tmp_path})
        trained, released = (
            load_file(run.artifact(name).path / "model.safetensors") for name in ("base", "released")
        )
        assert all(torch.equal(trained[name], released[name]) for name in trained)
        assert run.results["tuned"].metrics["loss"] < 2 * undisturbed.metrics["loss"]

    def test_a_detector_with_random_weights(self, world):
        stages = (
            "  start: {kind: pretrained, detector: {include: models/tiny.yaml}, seed: 1}\n"
            "  tuned: {kind: train, init: start, schedule: {iterations: 1}}\n"
        )
        assert world.run(stages).results["tuned"].metrics["iterations"] == 1

    def test_a_missing_file_is_named_with_the_address_where_it_is_published(self, world, tmp_path):
        stages = "  start: {kind: pretrained, backbone: {name: resnet50}, weights: R-50.pkl}\n"
        with pytest.raises(RecipeError, match="give --raw weights=DIR"):
            world.run(stages)
        with pytest.raises(RecipeError, match=r"R-50\.pkl: no such file .* published at https://"):
            world.run(stages, raw={"weights": tmp_path})
        with pytest.raises(RecipeError, match=r"no such file .* check the name"):
            world.run(stages.replace("R-50", "r50"), raw={"weights": tmp_path})
