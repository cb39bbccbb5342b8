from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from partseg.datasets import coco_panoptic
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Finding, Record, rle_to_mask
from partseg.synthetic.worlds import make_up

SHARED = Path(__file__).parents[2].parent / "shared"
SAMPLE = SHARED / "samples/coco"
JSON = "annotations/panoptic_train2017.json"


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    make_up("coco_panoptic", tmp_path / "raw", {"train": 4, "val": 1, "size": 64})
    return Raw(tmp_path / "raw", tmp_path / "scratch")


def convert(raw: Raw, split: str = "train2017", **options: Any) -> list[Record]:
    checked = coco_panoptic.Options(**options)
    return list(coco_panoptic.read(raw, split, coco_panoptic.splits(raw, checked)[split], checked))


def findings(records: list[Record]) -> list[Finding]:
    return [finding for record in records for finding in record.findings]


def edited(raw: Raw) -> Edited:
    return Edited(raw.root / JSON)


class Edited:
    """The JSON of the training split, to be changed within a ``with`` block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> dict[str, Any]:
        self.content: dict[str, Any] = orjson.loads(self._path.read_bytes())
        return self.content

    def __exit__(self, *_: object) -> None:
        self._path.write_bytes(orjson.dumps(self.content))


def ids_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.int64) @ [1, 256, 65536]


def masks(record: Record) -> Iterator[tuple[int, np.ndarray]]:
    assert record.image is not None
    for row in record.annotations:
        assert row.rle is not None
        assert row.source_id is not None
        yield row.source_id, rle_to_mask(row.rle, record.image.height, record.image.width)


def test_every_segment_has_the_pixels_of_its_id(raw: Raw) -> None:
    records = convert(raw, images="hash")
    content = orjson.loads((raw.root / JSON).read_bytes())
    by_image = {item["image_id"]: item for item in content["annotations"]}
    assert [record.image.source_id for record in records if record.image] == [
        item["id"] for item in content["images"]
    ]
    for record in records:
        assert record.image is not None
        assert record.image.sha256 is not None
        assert record.panoptic is not None
        ids = ids_of(raw.root / record.panoptic.file_name)
        assert (record.panoptic.runs.to_map() == ids).all()
        annotation = by_image[record.image.source_id]
        stated = [item["id"] for item in annotation["segments_info"]]
        assert [source_id for source_id, _ in masks(record)] == stated
        for (source_id, mask), segment, row in zip(
            masks(record), annotation["segments_info"], record.annotations, strict=True
        ):
            assert (mask == (ids == source_id)).all()
            assert (row.category_id, list(row.bbox_xywh), row.area) == (
                segment["category_id"],
                segment["bbox"],
                segment["area"],
            )
    assert not findings(records)


def test_crowds_are_marked(raw: Raw) -> None:
    with edited(raw) as content:
        content["annotations"][0]["segments_info"][0]["iscrowd"] = 1
        segment = content["annotations"][0]["segments_info"][0]["id"]
    rows = [row for record in convert(raw) for row in record.annotations]
    assert segment in [row.source_id for row in rows if row.is_crowd]


def test_things_are_objects_and_the_rest_is_stuff(raw: Raw) -> None:
    kinds = {
        item.name: (item.kind, item.colour) for item in coco_panoptic.categories(raw, coco_panoptic.Options())
    }
    assert kinds["dog"] == ("object", 0x00E2FC)
    assert kinds["grass-merged"] == ("stuff", 0x98FB98)


def test_stated_areas_are_kept_and_a_difference_reported(raw: Raw) -> None:
    with edited(raw) as content:
        segment = content["annotations"][0]["segments_info"][0]
        segment["area"] += 1
    records = convert(raw)
    assert [item.reason for item in findings(records)] == ["segment-disagrees"]
    areas = {row.source_id: row.area for record in records for row in record.annotations}
    assert areas[segment["id"]] == segment["area"]


def test_a_segment_without_pixels_and_pixels_without_a_segment_are_reported(raw: Raw) -> None:
    with edited(raw) as content:
        segment = content["annotations"][0]["segments_info"][0]
        old, segment["id"] = segment["id"], 16_777_215
    records = convert(raw)
    assert {item.reason for item in findings(records)} == {"segment-without-pixels", "pixels-without-segment"}
    assert not any(row.source_id in (old, 16_777_215) for record in records for row in record.annotations)
    kept = [record.panoptic.runs.labels for record in records if record.panoptic]
    assert any(old in labels for labels in kept)  # the map itself loses nothing


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("category_id", 77_777, "bad-segment"),
        ("category_id", None, "bad-segment"),
        ("id", 0, "bad-segment"),
        ("id", "7", "bad-segment"),
        ("bbox", [1, 2, 3], "bad-segment"),
        ("bbox", "none", "bad-segment"),
        ("area", [], "bad-segment"),
        ("iscrowd", 5, "bad-segment"),
    ],
)
def test_an_unusable_segment_is_left_out_and_reported(raw: Raw, field: str, value: Any, reason: str) -> None:
    before = sum(len(record.annotations) for record in convert(raw))
    with edited(raw) as content:
        content["annotations"][0]["segments_info"][0][field] = value
    records = convert(raw)
    assert reason in [item.reason for item in findings(records)]
    assert sum(len(record.annotations) for record in records) == before - 1


@pytest.mark.parametrize(
    ("table", "field", "value", "reason"),
    [
        ("images", "id", "seven", None),
        ("images", "width", -4, "bad-image-record"),
        ("images", "height", 63, "map-of-another-size"),
        ("images", "file_name", "../../etc/passwd", "bad-image-record"),
        ("images", "file_name", None, "bad-image-record"),
        ("annotations", "segments_info", {}, "bad-annotation"),
        ("annotations", "file_name", 3, "bad-annotation"),
    ],
)
def test_an_unusable_record_drops_its_image(
    raw: Raw, table: str, field: str, value: Any, reason: str | None
) -> None:
    with edited(raw) as content:
        content[table][0][field] = value
    if reason is None:
        with pytest.raises(SourceError, match="belongs to no image"):
            convert(raw)
        return
    records = convert(raw)
    dropped = [item for item in findings(records) if item.image_dropped]
    assert [item.reason for item in dropped] == [reason]
    assert sum(record.image is None for record in records) == 1


def test_an_image_without_annotation_is_dropped_and_reported(raw: Raw) -> None:
    with edited(raw) as content:
        del content["annotations"][1]
    assert [item.reason for item in findings(convert(raw))] == ["annotation-missing"]


def test_two_images_with_one_id_leave_one_and_a_finding(raw: Raw) -> None:
    with edited(raw) as content:
        content["images"].append(dict(content["images"][0]))
    records = convert(raw)
    assert [item.reason for item in findings(records)] == ["bad-image-record"]
    assert len(records) == 5


def test_missing_photos_are_an_error_that_can_be_allowed(raw: Raw) -> None:
    photo = sorted((raw.root / "train2017").iterdir())[0]
    photo.unlink()
    with pytest.raises(SourceError, match=photo.name):
        convert(raw)
    records = convert(raw, allow_missing=True)
    assert [item.reason for item in findings(records)] == ["image-missing"]
    assert len([record for record in convert(raw, images="none") if record.image]) == 4


def test_a_missing_or_truncated_map_is_named(raw: Raw) -> None:
    path = sorted((raw.root / "annotations/panoptic_train2017").iterdir())[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SourceError, match=path.name):
        convert(raw)
    path.unlink()
    with pytest.raises(SourceError, match=path.name):
        convert(raw)
    assert [item.reason for item in findings(convert(raw, allow_missing=True))] == ["map-missing"]


def test_splits_with_other_categories_are_refused(raw: Raw) -> None:
    with edited(raw) as content:
        content["categories"][0]["name"] = "human"
    with pytest.raises(SourceError, match="other categories"):
        coco_panoptic.categories(raw, coco_panoptic.Options())


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")
def test_the_real_sample_agrees_with_its_pixels(tmp_path: Path) -> None:
    raw = Raw(SAMPLE, tmp_path)
    options = {"annotations": {"val2017": "annotations/panoptic_val2017.json"}, "images": "hash"}
    records = convert(raw, "val2017", **options)
    assert [len(record.annotations) for record in records] == [18, 32, 30]
    assert not findings(records)
    for record in records:
        for row, (_, mask) in zip(record.annotations, masks(record), strict=True):
            expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            assert row.rle == expected
            assert row.area == mask.sum()
