from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partseg.datasets import pascal_pp
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Record, rle_to_mask
from partseg.synthetic.worlds import make_up


def written(folder: Path, uids: np.ndarray) -> Raw:
    """A raw folder with one map."""
    path = folder / "labels/training/2008_000002.tif"
    path.parent.mkdir(parents=True)
    Image.fromarray(uids.astype(np.int32)).save(path)
    return Raw(folder, folder / "scratch")


def convert(raw: Raw, split: str = "training", **options: Any) -> list[Record]:
    checked = pascal_pp.Options(**{"images": "none", "splits": (split,), **options})
    return list(pascal_pp.read(raw, split, pascal_pp.splits(raw, checked)[split], checked))


def test_every_annotation_has_the_pixels_of_its_uid(tmp_path: Path) -> None:
    make_up("pascal_pp", tmp_path, {"train": 6, "val": 1, "size": 64})
    raw = Raw(tmp_path, tmp_path / "scratch")
    parts = 0
    for record in convert(raw, images="hash"):
        assert record.image is not None
        assert record.panoptic is not None
        assert not record.findings
        uids = np.asarray(Image.open(tmp_path / record.panoptic.file_name))
        assert (record.panoptic.runs.to_map() == uids).all()
        whole = np.where(uids > 99_999, uids // 100, uids)
        for row in record.annotations:
            assert row.rle is not None
            mask = rle_to_mask(row.rle, *uids.shape)
            if row.parent is None:
                assert (mask == (whole == row.source_id)).all()
            else:
                parts += 1
                assert (mask == (uids == row.source_id)).all()
                assert record.annotations[row.parent].source_id == row.source_id // 100
            assert row.area == mask.sum()
    assert parts


@pytest.mark.parametrize(("parts", "wing"), [(57, "aeroplane:wing"), (194, "aeroplane:lwing")])
def test_parts_are_folded_into_the_chosen_classes(tmp_path: Path, parts: int, wing: str) -> None:
    raw = written(tmp_path, np.array([[1001_03, 1001_16, 1001_25, 84]]))
    names = {
        item.category_id: item.name for item in pascal_pp.categories(raw, pascal_pp.Options(parts=parts))
    }
    assert sum(":" in name for name in names.values()) == parts
    (record,) = convert(raw, parts=parts)
    found = [names[row.category_id] for row in record.annotations]
    # two wheels, which the file numbers from 16 on, are two annotations
    assert found == ["sky", "aeroplane", wing, "aeroplane:wheel", "aeroplane:wheel"]


def test_both_evaluations_come_with_their_flat_part_ids() -> None:
    raw = Raw(Path(), Path())
    for parts in (57, 107):
        table = pascal_pp.categories(raw, pascal_pp.Options(parts=parts))
        flat = [item.extra["flat_id"] for item in table if item.kind == "part" and item.extra]
        assert flat == list(range(1, parts + 1))
        evaluated = [item.extra["contiguous_id"] for item in table if item.kind != "part" and item.extra]
        assert sorted(evaluated) == list(range(59))


def test_things_without_instances_are_crowds_and_unevaluated_classes_ignored(tmp_path: Path) -> None:
    raw = written(tmp_path, np.array([[15, 15001, 22, 0]]))
    (record,) = convert(raw)
    rows = {row.source_id: row for row in record.annotations}
    assert set(rows) == {15, 15001, 22}
    assert rows[15].is_crowd
    assert not rows[15001].is_crowd
    assert rows[22].is_ignore
    assert not rows[15].is_ignore


def test_a_part_zero_belongs_to_the_object_and_is_no_part(tmp_path: Path) -> None:
    raw = written(tmp_path, np.array([[15001_00, 15001, 15001_01]]))
    (record,) = convert(raw)
    assert [(row.source_id, row.area) for row in record.annotations] == [(15001, 3), (15001_01, 1)]


def test_what_has_no_category_is_reported_and_stays_in_the_map(tmp_path: Path) -> None:
    uids = np.array([[4001_03, 84001, 15001_99]])  # a part of a boat, an instance of the sky, a 99th part
    (record,) = convert(written(tmp_path, uids))
    assert sorted(item.reason for item in record.findings) == [
        "instance-of-stuff",
        "part-without-category",
        "part-without-category",
    ]
    assert record.panoptic is not None
    assert (record.panoptic.runs.to_map() == uids).all()
    assert sum(row.area for row in record.annotations) == 3


@pytest.mark.parametrize("uid", [123, -1, 99_999_999])
def test_a_map_with_other_numbers_than_uids_is_refused(tmp_path: Path, uid: int) -> None:
    with pytest.raises(SourceError, match=r"2008_000002.tif.*" + str(uid)):
        convert(written(tmp_path, np.array([[1, uid]])))


def test_maps_that_are_no_label_images_are_refused(tmp_path: Path) -> None:
    raw = written(tmp_path, np.array([[1]]))
    path = tmp_path / "labels/training/2008_000002.tif"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    with pytest.raises(SourceError, match="one channel"):
        convert(raw)
    path.write_bytes(b"II*\0nonsense")
    with pytest.raises(SourceError, match="damaged"):
        convert(raw)


def test_photos_are_wanted_and_must_fit(tmp_path: Path) -> None:
    make_up("pascal_pp", tmp_path, {"train": 2, "val": 1, "size": 64})
    raw = Raw(tmp_path, tmp_path / "scratch")
    photo = sorted((tmp_path / "JPEGImages").iterdir())[0]
    Image.new("RGB", (10, 10)).save(photo)
    with pytest.raises(SourceError, match="10x10"):
        convert(raw, images="hash")
    photo.unlink()
    options = pascal_pp.Options()
    with pytest.raises(SourceError, match=photo.name):
        pascal_pp.files(tmp_path, options)
    with pytest.raises(SourceError, match=photo.name):
        convert(raw, images="list")
    records = convert(raw, images="list", allow_missing=True)
    assert [item.reason for item in records[0].findings] == ["image-missing"]
    assert records[1].image is not None


def test_a_folder_without_maps_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"labels/training/\*\.tif"):
        pascal_pp.files(tmp_path, pascal_pp.Options())
