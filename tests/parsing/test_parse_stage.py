"""The parse stage: what its parameters may say, and what it writes, on a world of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from partseg.errors import RecipeError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.vocabulary import resolve
from pipelines.inputs import open_dataset
from pipelines.parse import Params
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace

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
    synthetic: {seed: 0, per_class: 3, size: 64}
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


def parse(folder: Path, stages: str = "") -> dict[str, tuple[Dataset, dict[str, Any]]]:
    """The datasets of the three parses, with their metrics."""
    path = folder / "w.yaml"
    path.write_text(RECIPE + stages)
    workspace = Workspace.open(home=folder / "home", processes=0, workers=1)
    run = run_recipe(make_plan(load_recipe(path), workspace, Selection()), workspace)
    return {
        name: (open_dataset(run.artifact(name)), dict(run.results[name].metrics))
        for name in ("published", "objects", "listed")
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def parsed(world: Path) -> dict[str, tuple[Dataset, dict[str, Any]]]:
    return parse(world)


def names(dataset: Dataset) -> dict[int, str]:
    return {category.category_id: category.name for category in dataset.categories}


@pytest.mark.parametrize(("stage", "by_detector"), [("published", 6), ("objects", 6), ("listed", 3)])
def test_each_image_goes_where_its_label_sends_it(
    parsed: dict[str, tuple[Dataset, dict[str, Any]]], stage: str, by_detector: int
) -> None:
    dataset, metrics = parsed[stage]
    assert (metrics["by_detector"], metrics["by_transfer"]) == (by_detector, 6 - by_detector)
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
        parse(world, wrong)
