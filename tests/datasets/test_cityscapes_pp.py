from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.datasets import cityscapes_pp
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.synthetic.worlds import make_up

MAP = "gtFinePanopticParts/train/aachen/aachen_000000_000019_gtFinePanopticParts.tif"


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    make_up("cityscapes_pp", tmp_path, {"train": 4, "val": 1, "size": 64})
    return Raw(tmp_path, tmp_path / "scratch")


def test_the_group_of_an_image_is_its_city(raw: Raw) -> None:
    options = cityscapes_pp.Options(images="hash")
    keys = cityscapes_pp.splits(raw, options)["train"]
    records = list(cityscapes_pp.read(raw, "train", keys, options))
    assert {record.image.group for record in records if record.image} == {"aachen", "zurich"}
    assert all(
        record.image and record.image.source_key.startswith(record.image.group or "?") for record in records
    )
    assert any(row.parent is not None for record in records for row in record.annotations)


def test_part_5_on_a_person_is_reported_and_kept(raw: Raw) -> None:
    uids = np.full((4, 6), 24001, np.int32)
    uids[0], uids[1] = 24001_05, 24001_02
    Image.fromarray(uids).save(raw.root / MAP)
    options = cityscapes_pp.Options(images="none")
    (record,) = cityscapes_pp.read(raw, "train", ["aachen_000000_000019"], options)
    (finding,) = record.findings
    assert finding.reason == "part-without-category"
    assert "person has no part 5: 6 pixels" in finding.message
    person, head = record.annotations
    assert (person.source_id, person.area, head.source_id) == (24001, 24, 24001_02)
    assert record.panoptic is not None
    assert (record.panoptic.runs.to_map() == uids).all()


def test_parts_know_their_number_in_both_evaluations(raw: Raw) -> None:
    table = cityscapes_pp.categories(raw, cityscapes_pp.Options())
    parts = {item.name: item.extra for item in table if item.kind == "part"}
    assert parts["rider:torso"] == {
        "flat_id": 5,
        "file_sid_pids": [2501],
        "grouped_flat_id": 1,
        "grouped_name": "human-torso",
    }
    assert len(parts) == 23


def test_files_are_listed_with_their_photos(raw: Raw) -> None:
    options = cityscapes_pp.Options()
    found = cityscapes_pp.files(raw.root, options)
    assert len(found) == 10
    assert MAP in found
    photo = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    (raw.root / photo).unlink()
    with pytest.raises(SourceError, match="photos are missing"):
        cityscapes_pp.files(raw.root, options)
