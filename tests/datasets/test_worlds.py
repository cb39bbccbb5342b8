"""Every source's made-up world goes through its reader and the convert driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partseg.datasets.catalogue import SOURCES
from partseg.datasets.convert import convert
from partseg.layout import Category, Dataset, ImageRecord
from partseg.layout.checks import audit
from partseg.layout.export.coco import export
from partseg.synthetic import WORLDS, make_up

COUNTS = {"train": 9, "val": 5, "size": 64}
FOLDERS = {"per_class": 3, "size": 64}
OPTIONS: dict[str, dict[str, Any]] = {
    "coco_json": {"annotations": {"train": "train.json", "val": "val.json"}},
    "imagenet_folder": {"classes": {"n02099601": "dog", "n02085620": "dog", "n04487081": "bus"}},
}
# A made-up horse has hoofs, and hoofs no part category, as in the real files.
FINDINGS = {"pascal_part": {"part-without-category"}, "imagenet_subset": {"image-too-large"}}


def test_every_source_has_a_world() -> None:
    assert set(WORLDS) == set(SOURCES)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made_up(source: str, root: Path) -> dict[str, Any]:
    """The options to convert what is now under ``root``."""
    options = OPTIONS.get(source, {})
    make_up(source, root, FOLDERS if source.startswith("imagenet") else COUNTS, options)
    return options


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_workers_and_shards_do_not_change_a_byte(source: str, tmp_path: Path) -> None:
    options = made_up(source, tmp_path / "raw")
    convert(source, tmp_path / "raw", tmp_path / "one", options=options)
    convert(source, tmp_path / "raw", tmp_path / "two", options=options, workers=2, shard_records=3)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_the_dataset_is_sound_and_nothing_is_lost(source: str, tmp_path: Path) -> None:
    options = made_up(source, tmp_path / "raw")
    counts = convert(source, tmp_path / "raw", tmp_path / "out", options=options)
    dataset = Dataset.open(tmp_path / "out")
    assert audit(dataset) == []
    assert counts["images"] + counts["dropped"] == counts["source_records"]
    assert set(dataset.manifest.findings) <= FINDINGS.get(source, set())
    if not source.startswith("imagenet"):
        drawn = [COUNTS["train"], COUNTS["val"], 2][: len(dataset.splits)]
        assert sorted((len(dataset.split(name)) for name in dataset.splits), reverse=True) == drawn
        assert counts["dropped"] == 0
    if source not in {"imagenet_folder", "imagenet_subset", "partimagenet_supercat"}:
        assert counts["objects"] >= COUNTS["train"] + COUNTS["val"]
    for name in dataset.splits:
        split = dataset.split(name)
        assert all((tmp_path / "raw" / split[i].file_name).is_file() for i in range(len(split)))


def test_all_of_it_comes_back_through_coco_json(source: str, tmp_path: Path) -> None:
    options = made_up(source, tmp_path / "raw")
    convert(source, tmp_path / "raw", tmp_path / "out", options=options)
    first = Dataset.open(tmp_path / "out")
    (tmp_path / "json").mkdir()
    for name in first.splits:
        export(first, name, tmp_path / "json" / f"{name}.json", ids="layout")
    in_order = sorted(first.splits, key=lambda name: first.split(name)[0].image_id)
    annotations = {name: f"{name}.json" for name in in_order}
    again = {"annotations": annotations, "images": "none"}
    convert("coco_json", tmp_path / "json", tmp_path / "again", options=again)
    second = Dataset.open(tmp_path / "again")
    assert [link(row) for row in second.categories] == [link(row) for row in first.categories]
    for name in first.splits:
        pairs = zip(first.split(name), second.split(name), strict=True)
        assert all(same(a, b) for a, b in pairs)


def link(category: Category) -> tuple[Any, ...]:
    return category.category_id, category.name, category.kind, category.parent_id


def same(a: ImageRecord, b: ImageRecord) -> bool:
    names = (
        *("ann_ids", "category_ids", "parent_rows", "boxes_xywh", "areas", "is_crowd", "is_ignore"),
        *("pos_category_ids", "neg_category_ids", "not_exhaustive_category_ids"),
    )
    return a.rles == b.rles and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
