"""PartImageNet: parts with derived objects, and the image-level labels made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest

from partseg.datasets import partimagenet, partimagenet_supercat
from partseg.datasets.convert import convert
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Dataset, rle_to_mask
from partseg.layout.export.coco import export
from partseg.synthetic.raw_partimagenet import write_partimagenet

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = SHARED / "golden/imagenet_select/a"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden files are not here")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("partimagenet")
    write_partimagenet(root, seed=6, train=6, val=3, test=2, size=64)
    return root


@pytest.mark.parametrize("objects", ["union", "none"])
def test_a_made_up_folder_comes_back_exactly(world: Path, tmp_path: Path, objects: str) -> None:
    options = {"splits": ["train", "val"], "images": "hash", "objects": objects}
    counts = convert("partimagenet", world, tmp_path / "dataset", options=options)
    assert counts["objects"] == (9 if objects == "union" else 0)
    assert counts["findings"] == 0
    for split in ("train", "val"):
        export(Dataset.open(tmp_path / "dataset"), split, tmp_path / "out.json", ids="source")
        expected = orjson.loads((world / f"{split}.json").read_bytes())
        assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected


def test_an_object_is_the_union_of_its_parts(world: Path, tmp_path: Path) -> None:
    convert("partimagenet", world, tmp_path / "dataset", options={"splits": ["train"]})
    dataset = Dataset.open(tmp_path / "dataset")
    names = {row.category_id: row for row in dataset.categories}
    assert (names[1].name, names[1].source_name, names[1].parent_id) == (
        "Quadruped:Head",
        "Quadruped Head",
        101,
    )
    for record in dataset.split("train"):
        masks = [rle_to_mask(rle, record.height, record.width) for rle in record.rles if rle]
        np.testing.assert_array_equal(masks[0], np.logical_or.reduce(masks[1:]))
        assert record.parent_rows.tolist() == [-1] + [0] * (len(masks) - 1)
        assert names[int(record.category_ids[0])].kind == "object"
        for category in record.category_ids[1:].tolist():
            assert names[category].parent_id == record.category_ids[0]
        y, x = np.nonzero(masks[0])
        box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert record.boxes_xywh[0].tolist() == box
        assert record.areas[0] == masks[0].sum()


@golden
def test_parts_of_two_things_have_no_object(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "partimagenet_in.json", tmp_path / "train.json")
    raw = Raw(tmp_path, tmp_path / "scratch")
    options = partimagenet.Options(splits=("train",), images="none")
    keys = partimagenet.splits(raw, options)["train"]
    records = {
        record.image.source_id: record
        for record in partimagenet.read(raw, "train", keys, options)
        if record.image
    }
    assert records[3].image is not None
    assert records[3].image.file_name == "train/n01440764/n01440764_103.JPEG"
    assert all(row.source_row is not None for row in records[3].annotations)
    content = orjson.loads((GOLDEN / "partimagenet_in.json").read_bytes())
    for record in records.values():
        for row in record.annotations:
            if row.source_row is not None:
                item = content["annotations"][row.source_row]
                assert row.category_id == item["category_id"] + 1
                assert [ring.tolist() for ring in row.polygons] == item["segmentation"]
                assert (row.rle is None) == all(len(ring) < 6 for ring in item["segmentation"])


@golden
@pytest.mark.parametrize("source", ["partimagenet_in.json", "partimagenet_format.json"])
def test_image_labels_are_those_of_the_original_tool(tmp_path: Path, source: str) -> None:
    shutil.copy(GOLDEN / source, tmp_path / "train.json")
    options = {"images": "none"}
    counts = convert("partimagenet_supercat", tmp_path, tmp_path / "dataset", options=options)
    expected = orjson.loads((GOLDEN / "partimagenet_supercat.json").read_bytes())
    split = Dataset.open(tmp_path / "dataset").split("train")
    table = split.table("images").to_pylist()
    assert counts["images"] == len(expected["images"]) == len(table)
    for row, image in zip(table, expected["images"], strict=True):
        assert row["source_id"] == image["id"]
        assert row["file_name"] == f"train/{image['file_name']}"
        assert (row["height"], row["width"]) == (image["height"], image["width"])
        assert [label - 1 for label in row["pos_category_ids"]] == image["pos_category_ids"]
    categories = Dataset.open(tmp_path / "dataset").categories
    assert [{"id": row.source_id, "name": row.name} for row in categories] == expected["categories"]
    assert not split.table("annotations").num_rows


def test_images_without_annotations_have_no_label(world: Path, tmp_path: Path) -> None:
    content = orjson.loads((world / "train.json").read_bytes())
    first = content["annotations"][0]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == first["image_id"]]
    (tmp_path / "train.json").write_text(json.dumps(content))
    raw = Raw(tmp_path, tmp_path / "scratch")
    options = partimagenet_supercat.Options(images="none")
    assert partimagenet_supercat.splits(raw, options) == {"train": [str(first["image_id"])]}


def test_categories_of_another_dataset_are_an_error(tmp_path: Path) -> None:
    content = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 80, "name": "dog"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    options = partimagenet.Options(splits=("train",))
    with pytest.raises(SourceError, match=r"category 80 \('dog'\) is none of PartImageNet's"):
        partimagenet.categories(Raw(tmp_path, tmp_path / "scratch"), options)
