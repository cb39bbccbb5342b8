"""COCO-like files: what is kept, what becomes a finding, and that an export gives the file back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from partseg.datasets import coco, coco_json
from partseg.datasets.convert import convert
from partseg.datasets.formats import coco_masks
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Dataset, Record, mask_to_rle
from partseg.layout.export.coco import export
from partseg.synthetic.raw_coco import write_coco

SHARED = Path(__file__).parents[2].parent / "shared"
SAMPLES = SHARED / "samples"
samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="real samples are not here")

TRIANGLE = [1.25, 2, 9.5, 2.75, 5, 11]
SQUARE = [12.0, 1.0, 18.0, 1.0, 18.0, 7.0, 12.0, 7.0]
HEIGHT, WIDTH = 16, 20


def image(number: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH, **fields}


def annotation(number: Any = 1, **fields: Any) -> dict[str, Any]:
    row = {"id": number, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 9.125, "iscrowd": 0}
    return {**row, "segmentation": [TRIANGLE], **fields}


def content(*annotations: Any, images: Any = None, categories: Any = None) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [image()] if images is None else images,
        "annotations": list(annotations),
        "categories": [{"id": 3, "name": "dog"}] if categories is None else categories,
    }


def read(folder: Path, written: dict[str, Any], **options: Any) -> list[Record]:
    (folder / "a.json").write_text(json.dumps(written))
    raw = Raw(folder, folder / "scratch")
    chosen = coco_json.Options(**{"annotations": {"train": "a.json"}, "images": "none", **options})
    keys = coco_json.splits(raw, chosen)["train"]
    return list(coco_json.read(raw, "train", keys, chosen))


def reasons(records: list[Record]) -> list[str]:
    return [finding.reason for record in records for finding in record.findings]


def given_back(folder: Path, written: dict[str, Any], **options: Any) -> Any:
    """The file after a conversion and an export in the source's form."""
    (folder / "a.json").write_text(json.dumps(written))
    chosen = {"annotations": {"train": "a.json"}, "images": "none", **options}
    convert("coco_json", folder, folder / "dataset", options=chosen)
    export(Dataset.open(folder / "dataset"), "train", folder / "b.json", ids="source")
    return orjson.loads((folder / "b.json").read_bytes())


@samples
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_annotations_have_the_masks_of_pycocotools(tmp_path: Path, split: str) -> None:
    from pycocotools.coco import COCO

    raw, options = Raw(SAMPLES / "coco", tmp_path), coco.Options()
    records = list(coco.read(raw, split, coco.splits(raw, options)[split], options))
    theirs = COCO(str(SAMPLES / f"coco/annotations/instances_{split}.json"))
    assert [record.image.source_id for record in records if record.image] == theirs.getImgIds()
    for record in records:
        ids = [row.source_id for row in record.annotations]
        assert ids == [item["id"] for item in theirs.imgToAnns[record.image.source_id]]
        for row in record.annotations:
            item = theirs.anns[row.source_id]
            assert row.rle == theirs.annToRLE(item)["counts"]
            assert list(row.bbox_xywh) == item["bbox"]
            if not item["iscrowd"]:
                assert [ring.tolist() for ring in row.polygons] == item["segmentation"]
    assert any(row.is_crowd for record in records for row in record.annotations) or split == "train2017"


@samples
def test_real_files_come_back_exactly(tmp_path: Path) -> None:
    convert("coco", SAMPLES / "coco", tmp_path / "dataset", options={"images": "hash"})
    convert(
        "coco_json",
        SAMPLES / "results_coco",
        tmp_path / "coco2014",
        options={"annotations": {"val": "annotations/instances_val2014_100.json"}, "images": "none"},
    )
    for name, split, source in (
        ("dataset", "train2017", "coco/annotations/instances_train2017.json"),
        ("dataset", "val2017", "coco/annotations/instances_val2017.json"),
        ("coco2014", "val", "results_coco/annotations/instances_val2014_100.json"),
    ):
        export(Dataset.open(tmp_path / name), split, tmp_path / "out.json", ids="source")
        expected = orjson.loads((SAMPLES / source).read_bytes())
        assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected


def test_a_made_up_folder_comes_back_exactly(tmp_path: Path) -> None:
    write_coco(tmp_path / "raw", seed=5, train=4, val=2, size=64)
    counts = convert("coco", tmp_path / "raw", tmp_path / "dataset", options={"images": "hash"})
    assert counts["findings"] == 0
    for split in ("train2017", "val2017"):
        export(Dataset.open(tmp_path / "dataset"), split, tmp_path / "out.json", ids="source")
        expected = orjson.loads((tmp_path / f"raw/annotations/instances_{split}.json").read_bytes())
        assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected


def test_every_way_to_write_a_segmentation_comes_back(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[3:9, 4:15] = True
    plain = {"size": [HEIGHT, WIDTH], "counts": [67, 6, *[10, 6] * 10, 320 - 67 - 6 - 160]}
    packed = {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(mask).decode()}
    written = content(
        annotation(1, segmentation=[TRIANGLE, SQUARE]),
        annotation(2, segmentation=packed),
        annotation(3, segmentation=packed, iscrowd=1),
        annotation(4, segmentation=plain, iscrowd=1),
        annotation(5, segmentation=plain),
        annotation(6, segmentation=[]),
        annotation(7, segmentation=[SQUARE], iscrowd=1),
        {key: value for key, value in annotation(8).items() if key not in ("segmentation", "iscrowd")},
        annotation(9, keypoints=[1, 2, 2], caption="é", segmentation=None),
        annotation(10, segmentation=[[1, 2, 3, 4], SQUARE], iscrowd=2),
    )
    rows = read(tmp_path, written)[0].annotations
    assert [row.rle == packed["counts"].encode() for row in rows[1:5]] == [True] * 4
    assert given_back(tmp_path, written) == written


def test_missing_boxes_and_areas_are_those_of_the_mask(tmp_path: Path) -> None:
    bare = annotation(segmentation=[SQUARE])
    del bare["bbox"], bare["area"]
    (record,) = read(tmp_path, content(bare))
    assert record.annotations[0].bbox_xywh == (12, 1, 6, 6)
    assert record.annotations[0].area == 36
    assert given_back(tmp_path, content(bare)) == content(bare)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 4}, "unknown-category"),
        ({"category_id": [3]}, "unknown-category"),
        ({"bbox": [1, 2, 3]}, "bad-box"),
        ({"bbox": [1, 2, -3, 4]}, "bad-box"),
        ({"bbox": [1, 2, math.nan, 4]}, "bad-box"),
        ({"bbox": [1, math.inf, 3, 4]}, "bad-box"),
        ({"bbox": "1234"}, "bad-box"),
        ({"bbox": None}, "bad-box"),
        ({"area": "9"}, "bad-area"),
        ({"area": math.nan}, "bad-area"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_left_out(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    (record,) = read(tmp_path, content(annotation(1, **change), annotation(2)))
    assert [row.source_id for row in record.annotations] == [2]
    assert [finding.reason for finding in record.findings] == [reason]
    assert "annotation 1 (0 in the file)" in record.findings[0].message


@pytest.mark.parametrize(
    "segmentation",
    [
        "x",
        7,
        [1, 2, 3, 4, 5, 6],
        [[1, 2, 3, "4", 5, 6]],
        [[1, 2, 3, None, 5, 6]],
        [[1, 2, 3, math.nan, 5, 6]],
        {"size": [WIDTH, HEIGHT], "counts": [320]},
        {"size": [HEIGHT, WIDTH], "counts": [300]},
        {"size": [HEIGHT, WIDTH], "counts": [400, -80]},
        {"size": [HEIGHT, WIDTH], "counts": "not run-lengths"},
        {"size": [HEIGHT, WIDTH], "counts": "P"},
        {"size": [HEIGHT, WIDTH], "counts": ""},
        {"size": [HEIGHT, WIDTH], "counts": "P:é"},
        {"size": [HEIGHT, WIDTH]},
    ],
)
def test_a_segmentation_that_makes_no_sense_costs_the_mask_alone(tmp_path: Path, segmentation: Any) -> None:
    (record,) = read(tmp_path, content(annotation(1, segmentation=segmentation), annotation(2)))
    assert [row.rle is None for row in record.annotations] == [True, False]
    assert reasons([record]) == ["bad-segmentation"]


@pytest.mark.parametrize(
    ("polygons", "reason"),
    [
        ([[]], "degenerate-polygon"),
        ([[1.0, 2.0]], "degenerate-polygon"),
        ([[1.0, 2.0, 5.0, 6.0]], "degenerate-polygon"),
        ([[1.0, 2.0, 5.0, 6.0, 7.0, 1.0, 3.0]], "degenerate-polygon"),
        ([[1.0, 2.0, 5.0, 6.0], SQUARE], "degenerate-polygon"),
        ([[1e9, 2.0, 5.0, 6.0, 7.0, 1.0], SQUARE], "polygon-far-outside"),
    ],
)
def test_an_outline_that_cannot_be_drawn_is_kept(
    tmp_path: Path, polygons: list[list[float]], reason: str
) -> None:
    (record,) = read(tmp_path, content(annotation(1, segmentation=polygons), annotation(2)))
    row = record.annotations[0]
    assert [ring.tolist() for ring in row.polygons] == polygons
    expected = coco_mask.frPyObjects([SQUARE], HEIGHT, WIDTH)[0]["counts"] if SQUARE in polygons else None
    assert row.rle == expected
    assert reasons([record]) == [reason]


def test_annotations_of_no_image_are_findings_of_the_first(tmp_path: Path) -> None:
    nameless = annotation(9)
    del nameless["image_id"]
    images = [image(4), image(1)]
    records = read(
        tmp_path, content(annotation(7, image_id=99), annotation(8), nameless, annotation(10), images=images)
    )
    assert [len(record.annotations) for record in records] == [0, 2]
    assert [(item.reason, item.source_key) for item in records[0].findings] == [
        ("unknown-image", "99"),
        ("unknown-image", "none"),
    ]


def test_repeated_ids_are_findings(tmp_path: Path) -> None:
    images = [image(1), image(2), image(1, file_name="other.jpg"), image("5"), image(3)]
    rows = annotation(6), annotation(6, image_id=2), annotation("7"), annotation(8, image_id=3)
    records = read(tmp_path, content(*rows, images=images))
    assert [record.image and record.image.source_id for record in records] == [1, 2, None, None, 3]
    assert [len(record.annotations) for record in records] == [2, 1, 0, 0, 1]
    assert reasons(records) == [
        *("repeated-annotation-id", "bad-annotation-id", "repeated-annotation-id"),
        *("bad-image", "bad-image"),
    ]
    assert all(item.image_dropped == (item.reason == "bad-image") for r in records for item in r.findings)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": "20"},
        {"height": -16, "width": -20},
        {"height": 10**6, "width": 10**6},
        {"file_name": None},
        {"file_name": ""},
        {"file_name": "../a.jpg"},
        {"file_name": "/a.jpg"},
        {"file_name": "a\0.jpg"},
    ],
)
def test_an_image_that_makes_no_sense_is_dropped(tmp_path: Path, change: dict[str, Any]) -> None:
    records = read(tmp_path, content(annotation(), images=[image(1, **change), image(2)]))
    assert [record.image is None for record in records] == [True, False]
    assert reasons(records) == ["bad-image"]


def test_missing_photos(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "1.jpg")
    written = content(images=[image(1), image(2)])
    with pytest.raises(SourceError, match=r"photos are missing: 2\.jpg"):
        read(tmp_path, written, images="list")
    records = read(tmp_path, written, images="hash", allow_missing=True)
    assert records[0].image is not None
    assert records[0].image.sha256 is not None
    assert reasons(records) == ["image-missing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category id 3 is used twice"),
        ({"categories": [{"name": "a"}]}, "a category has the id None"),
        ({"categories": [{"id": 3}]}, "category 3 has no name"),
        ({"categories": {"id": 3}}, "'categories' is not a list of objects"),
        ({"images": []}, "has no images"),
        ({"annotations": {}}, "'annotations' is not a list"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, content() | change)


def test_category_ids_begin_at_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps(content(categories=[{"id": 0, "name": "a", "x": 1}, {"id": 7, "name": "a"}]))
    )
    options = coco_json.Options(annotations={"train": "a.json"})
    rows = coco_json.categories(Raw(tmp_path, tmp_path / "scratch"), options)
    assert [(row.category_id, row.source_id) for row in rows] == [(1, 0), (8, 7)]
    assert [(row.name, row.source_name) for row in rows] == [("a #0", "a"), ("a #7", "a")]
    assert rows[0].extra == {"x": 1}


def test_our_own_export_restores_objects_parts_and_links(tmp_path: Path) -> None:
    categories = [
        {"id": 1, "name": "dog", "kind": "object"},
        {"id": 2, "name": "dog:head", "kind": "part", "parent_id": 1},
        {"id": 3, "name": "grass", "kind": "stuff"},
    ]
    written = content(
        annotation(4, category_id=2, parent_id=9),
        annotation(5, category_id=1, score=0.1),
        annotation(9, category_id=1, ignore=1),
        annotation(11, category_id=2, parent_id=77),
        annotation(12, category_id=3, attribute_ids=[4, 2]),
        images=[image(pos_category_ids=[1, 2])],
        categories=categories,
    )
    (record,) = read(tmp_path, written)
    assert [row.source_id for row in record.annotations] == [5, 9, 12, 4, 11]
    assert [row.parent for row in record.annotations] == [None, None, None, 1, None]
    assert reasons([record]) == ["unknown-object"]
    assert record.image is not None
    assert record.image.pos_category_ids == (1, 2)
    assert given_back(tmp_path, written) == written
    first = Dataset.open(tmp_path / "dataset")
    export(first, "train", tmp_path / "ours.json", ids="layout")
    options = {"annotations": {"train": "ours.json"}, "images": "none"}
    convert("coco_json", tmp_path, tmp_path / "again", options=options)
    second = Dataset.open(tmp_path / "again")
    assert [(c.name, c.kind, c.parent_id) for c in first.categories] == [
        (c.name, c.kind, c.parent_id) for c in second.categories
    ]
    before, after = first.split("train")[0], second.split("train")[0]
    for name in ("category_ids", "parent_rows", "boxes_xywh", "areas", "is_crowd", "is_ignore", "scores"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert before.rles == after.rles


def test_splits_of_one_dataset_share_the_category_table(tmp_path: Path) -> None:
    val = content(categories=[{"id": 3, "name": "dog", "seen": 2}, {"id": 4, "name": "cat"}])
    (tmp_path / "train.json").write_text(json.dumps(content()))
    (tmp_path / "val.json").write_text(json.dumps(val))
    raw = Raw(tmp_path, tmp_path / "scratch")
    options = coco_json.Options(annotations={"train": "train.json", "val": "val.json"})
    assert [row.name for row in coco_json.categories(raw, options)] == ["dog", "cat"]
    assert coco_json.details(raw, options)["val"]["categories"] == val["categories"]
    (tmp_path / "val.json").write_text(json.dumps(content(categories=[{"id": 3, "name": "cat"}])))
    with pytest.raises(SourceError, match="category 3 is 'cat', but 'dog' in another split"):
        coco_json.categories(raw, options)


def test_a_made_up_size_does_not_fill_the_memory() -> None:
    ring = [0.0, 0.0, 5e8, 0.0, 5e8, 5e8]
    (shape,) = coco_masks.shapes([[ring]], (10, 10))
    assert shape.rle is None
    assert shape.problem is not None
