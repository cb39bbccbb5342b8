"""The parse stage: what its parameters may say, and what it writes, on a world of seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partialmethod
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import pipelines.parse
from partseg.errors import RecipeError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.parsing import shards
from partseg.progress import Progress, Silent
from partseg.store.trees import tree_of
from partseg.vocabulary import resolve
from pipelines.artifact import StageContext
from pipelines.inputs import open_dataset
from pipelines.launch import Launch, Processes
from pipelines.parse import Params
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import Run, run_recipe
from pipelines.workspace import Workspace
from tests.training.ranks import start

NEEDED = {"images": "photos", "detector": "base", "vocabulary": "texts"}
LENT = {"base": "parts", "index": "index", "descriptors": "vit"}
PUBLISHED = {"by_detector": "all", "finds": "paco", "writes": "paco"}


@pytest.mark.parametrize(
    "given",
    [
        LENT,
        {**LENT, "by_detector": []},
        {**LENT, "by_detector": ["dog"], "writes": "addition_part"},
        PUBLISHED,
        {**PUBLISHED, "reading": {"short_side": 336, "long_side": 996}},
        {**PUBLISHED, "finds": None, "base": "parts"},
        {"by_detector": "all", "base": "parts"},
    ],
)
def test_what_can_be_asked_for(given: dict[str, Any]) -> None:
    assert Params(**NEEDED, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "transfer needs base and index and descriptors; or say by_detector: all"),
        ({**LENT, "index": None}, "transfer needs index; or say"),
        ({**LENT, "by_detector": "all"}, "by_detector: all transfers nothing"),
        ({**PUBLISHED, "base": "parts"}, "nothing is taken from base"),
        ({"by_detector": "all"}, "give base, or both finds and writes"),
        ({"by_detector": "all", "finds": "paco"}, "give base, or both finds and writes"),
        ({**PUBLISHED, "writes": "pacco"}, r"no vocabulary 'pacco' is published; did you mean paco\?"),
        ({**LENT, "reading": {}}, "the index says how large"),
        (
            {**PUBLISHED, "reading": {}, "parser": {"detector_sees": "original"}},
            "the detector sees the original",
        ),
        ({**LENT, "by_detector": "dog"}, "by_detector"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_runs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Params(**NEEDED, **given)


RECIPE = """
every:
  train:
    model: {include: models/tiny.yaml, inference: {short_side: 64, long_side: 96}}
    vocabulary: texts
    augment: {short_sides: [64], sampling: choice}
    schedule: {iterations: 2, batches: 1, warmup: 1, learning_rate: 1e-3, gradient_clip: 5}
  parse:
    images: photos
    detector: base
    vocabulary: texts
    parser: {score_threshold: 0, match_iou: 0, max_detections: 40, proposals: 40}
stages:
  raw_parts: {kind: acquire, source: pascal_part, synthetic: {seed: 0, train: 8, val: 3, size: 64}}
  raw_photos:
    kind: acquire
    source: imagenet_folder
    options: {classes: {n02099601: dog, n02124075: cat}}
    synthetic: {seed: 0, per_class: 4, size: 64}
  parts: {kind: convert, raw: raw_parts}
  photos: {kind: convert, raw: raw_photos}
  texts: {kind: vocabulary, published: [pascal_part, paco], encoder: "offline:128"}
  base: {kind: train, data: [{from: parts, batch_size: 2}]}
  vit:
    kind: pretrained
    images: [{from: parts, parts: base}]
    training: {iterations: 2, batch: 4, crop: 48, vit: {dim: 24, depth: 1, image_size: 64, stem: [8, 16]}}
  index:
    kind: base_index
    descriptors: vit
    data: parts
    reading: {short_side: 64, long_side: 96, saliency_heads: [0, 1, 2], saliency_threshold: 0}
  published: {kind: parse, by_detector: all, finds: pascal_part, writes: pascal_part}
  objects: {kind: parse, by_detector: all, finds: paco, writes: paco}
  listed: {kind: parse, by_detector: [cat], base: parts, base_group: all, index: index, descriptors: vit}
"""


def built(folder: Path, stages: str = "") -> Run:
    """A run of the recipe."""
    path = folder / "w.yaml"
    path.write_text(RECIPE + stages)
    workspace = Workspace.open(home=folder / "home", processes=0, workers=1)
    return run_recipe(make_plan(load_recipe(path), workspace, Selection()), workspace)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def run(world: Path) -> Run:
    return built(world)


@pytest.fixture(scope="module")
def parsed(run: Run) -> dict[str, tuple[Dataset, dict[str, Any]]]:
    """The datasets of the three parses, with their metrics."""
    return {
        name: (open_dataset(run.artifact(name)), dict(run.results[name].metrics))
        for name in ("published", "objects", "listed")
    }


def names(dataset: Dataset) -> dict[int, str]:
    return {category.category_id: category.name for category in dataset.categories}


@pytest.mark.parametrize(("stage", "by_detector"), [("published", 8), ("objects", 8), ("listed", 4)])
def test_each_image_goes_where_its_label_sends_it(
    parsed: dict[str, tuple[Dataset, dict[str, Any]]], stage: str, by_detector: int
) -> None:
    dataset, metrics = parsed[stage]
    assert (metrics["by_detector"], metrics["by_transfer"]) == (by_detector, 8 - by_detector)
    assert metrics["parts"] > 0
    assert len(dataset.split("train")) == metrics["images_with_parts"] > 0
    assert audit(dataset) == []


def test_a_published_vocabulary_needs_no_base_dataset(
    parsed: dict[str, tuple[Dataset, dict[str, Any]]],
) -> None:
    dataset, _ = parsed["published"]
    parts = [category.name for category in dataset.categories if category.kind == "part"]
    assert tuple(parts) == resolve("pascal_part").names
    own = names(dataset)
    for record in dataset.split("train"):
        label = own[int(record.pos_category_ids[0])]
        found = [own[number] for number in record.category_ids.tolist()]
        assert found[0] == label
        assert all(name.startswith(f"{label}:") for name in found[1:])


def test_objects_are_those_that_were_found(parsed: dict[str, tuple[Dataset, dict[str, Any]]]) -> None:
    dataset, _ = parsed["objects"]
    own = names(dataset)
    assert set(own.values()) == {*resolve("paco").names, "cat"}  # PACO has dogs, but no cats
    for record in dataset.split("train"):
        label = own[int(record.pos_category_ids[0])]
        for number, parent, score in zip(
            record.category_ids.tolist(), record.parent_rows.tolist(), record.scores.tolist(), strict=True
        ):
            assert parent == -1
            assert score > 0
            assert ":" not in own[number] or own[number].startswith(f"{label}:")


@pytest.mark.usefixtures("parsed")
def test_a_label_that_no_image_can_have_is_an_error(world: Path) -> None:
    wrong = "  wrong: {kind: parse, by_detector: [Cat], base: parts, index: index, descriptors: vit}\n"
    with pytest.raises(RecipeError, match="by_detector: photos has no label 'Cat'"):
        built(world, wrong)


def test_metrics_say_where_parts_are_missing(parsed: dict[str, tuple[Dataset, dict[str, Any]]]) -> None:
    for dataset, metrics in parsed.values():
        split, own = dataset.split("train"), names(dataset)
        kinds = {category.category_id: category.kind for category in dataset.categories}
        parts = {"cat": 0, "dog": 0}
        for record in split:
            found = [number for number in record.category_ids.tolist() if kinds[number] == "part"]
            parts[own[int(record.pos_category_ids[0])]] += len(found)
        assert {label: metrics[f"parts/{label}"] for label in parts} == parts
        assert metrics["images"] == 8 == split.entry.source_records
        assert metrics.get("no_part_found", 0) == 8 - metrics["images_with_parts"] == split.entry.dropped


class Stage:
    """The stage ``listed``, which has images for both paths, run by itself."""

    def __init__(self, run: Run, folder: Path) -> None:
        stage = run.plan.recipe.stages["listed"]
        self.params, self.inputs = stage.params, {name: run.artifact(name) for name in stage.needs}
        self.folder, self.work = folder, folder / "work"
        self.expected = run.results["listed"].digest

    def make(self, name: str = "out", *, processes: int = 0, progress: Progress | None = None) -> str:
        """The digest of all files it writes."""
        out = self.folder / name
        launch = Launch(processes=processes)
        context = StageContext(work=self.work, launch=launch, progress=progress or Silent())
        pipelines.parse.run(self.params, self.inputs, out, context)
        return tree_of(out).digest

    @property
    def shards(self) -> dict[str, int]:
        """Name and time of what is done."""
        return {path.name: path.stat().st_mtime_ns for path in self.work.rglob("*.jsonl")}


@pytest.fixture
def stage(run: Run, tmp_path: Path) -> Stage:
    return Stage(run, tmp_path)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("batch", [1, 8])
def test_batches_and_shards_change_no_byte(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, size: int, batch: int
) -> None:
    monkeypatch.setattr(shards, "SHARD", size)
    monkeypatch.setattr(shards, "SHARDS", 1)
    monkeypatch.setattr(shards.Shards, "make", partialmethod(shards.Shards.make, batch=batch))
    assert stage.make() == stage.expected
    assert len(stage.shards) == -(-8 // size)


def test_processes_change_no_byte(stage: Stage) -> None:
    assert stage.make(processes=2) == stage.expected
    assert not active_children()


@pytest.mark.parametrize(
    ("given", "graphics_cards", "processes"),
    [
        (0, "", 0),
        (1, "", 0),
        (3, "", 3),
        ("auto", "", 0),
        ("auto", "0", 0),
        ("auto", "0,1,2", 3),
        (2, "0", 2),
    ],
)
def test_processes_are_started_only_where_they_help(
    monkeypatch: pytest.MonkeyPatch, given: Processes, graphics_cards: str, processes: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", graphics_cards)
    assert Launch(processes=given).sharing() == processes


class StopAfter(Silent):
    def __init__(self, images: int, stop: Callable[[], None]) -> None:
        self.images, self.stop = images, stop

    def update(self, done: int, total: int, message: str = "") -> None:
        if done > self.images:
            self.stop()


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    raise KeyboardInterrupt


def test_killed_in_the_middle_it_makes_what_is_missing_and_ends_the_same(stage: Stage) -> None:
    assert start(lambda: stage.make(progress=StopAfter(5, killed))).end() == -signal.SIGKILL
    assert not (stage.folder / "out").exists()
    before = stage.shards
    assert len(before) == 5
    assert stage.make() == stage.expected
    assert before.items() <= stage.shards.items()


def test_cancelled_it_leaves_nothing_but_what_the_next_run_needs(stage: Stage) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage.make(progress=StopAfter(3, interrupted))
    assert [path.name for path in stage.folder.iterdir()] == ["work"]
    before = stage.shards
    assert len(before) == 3
    path = next(stage.work.rglob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-40])
    assert stage.make() == stage.expected
    assert {name for name, when in before.items() if stage.shards[name] != when} == {path.name}


def test_a_quota_leaves_findings_and_the_same_artifact_on_any_number_of_shards(stage: Stage) -> None:
    stage.params = stage.params.model_copy(
        update={"parser": stage.params.parser.model_copy(update={"images_per_class": 1})}
    )
    first = stage.make("first")
    dataset = Dataset.open(stage.folder / "first", image_root=stage.folder, cache=stage.folder / "cache")
    labels = [tuple(record.pos_category_ids.tolist()) for record in dataset.split("train")]
    assert len(labels) == len(set(labels)) == 2
    assert dataset.manifest.findings["beyond-quota"] > 0
    assert stage.make("second") == first


def test_a_parser_can_be_opened_for_a_look_at_single_images(stage: Stage) -> None:
    opened = pipelines.parse.open_parser(stage.params, stage.inputs)
    (record,) = opened.parser.records(opened.images, [0])
    written = Dataset.open(stage.inputs["photos"].path, image_root=stage.folder, cache=stage.folder / "cache")
    assert record.image is not None
    assert record.image.source_key == written.split("train")[0].source_key
