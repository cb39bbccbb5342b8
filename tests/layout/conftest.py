from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from partseg.layout import (
    AnnotationRow,
    Category,
    DatasetWriter,
    Finding,
    ImageRow,
    Record,
    mask_to_rle,
    rle_area,
    rle_bbox,
)

CATEGORIES = (
    Category(category_id=1, name="dog:head", kind="part", parent_id=11, group="novel", source_id=1),
    Category(category_id=2, name="cat:paw", kind="part", parent_id=12, group="base", source_name="cat:pa"),
    Category(category_id=11, name="dog", kind="object", group="novel", synonyms=("hound", "pup")),
    Category(category_id=12, name="cat", kind="object", group="base", colour=0xFF8000),
)


def row(category_id: int, mask: np.ndarray, **fields: object) -> AnnotationRow:
    rle = mask_to_rle(mask)
    box = tuple(float(value) for value in rle_bbox(rle, mask.shape[0]))
    return AnnotationRow(category_id=category_id, bbox_xywh=box, area=float(rle_area(rle)), rle=rle, **fields)


def record(key: str, seed: int = 0, height: int = 20, width: int = 30) -> Record:
    """Two objects given before their three parts."""
    random = np.random.default_rng(seed)

    def mask() -> np.ndarray:
        y, x = random.integers(0, height - 5), random.integers(0, width - 5)
        array = np.zeros((height, width), np.bool_)
        array[y : y + 5, x : x + 4] = random.random((5, 4)) > 0.2
        array[y, x] = True
        return array

    annotations = (
        row(11, mask()),
        row(12, mask(), is_crowd=True),
        row(1, mask(), parent=0, extra={"part_name": "head"}),
        row(2, mask(), parent=1, score=0.25),
        row(1, mask(), parent=0, attributes=(3, 4)),
    )
    image = ImageRow(
        file_name=f"img/{key}.jpg",
        height=height,
        width=width,
        source_key=key,
        sha256=bytes(32),
        pos_category_ids=(11, 12),
        extra={"objects": 2},
    )
    return Record(image=image, annotations=annotations)


def dropped(key: str) -> Record:
    return Record(
        image=None,
        findings=(Finding(source_key=key, reason="too-large", message="big", image_dropped=True),),
    )


def write(out: Path, splits: dict[str, Iterable[Record]], **options: object) -> Path:
    settings: dict[str, object] = {
        "name": "toy",
        "categories": CATEGORIES,
        "converter": {"name": "toy", "settings": {}},
        "image_source": "toy_raw",
    }
    with DatasetWriter(out, **{**settings, **options}) as writer:
        for split, records in splits.items():
            for item in records:
                writer.write(split, item)
    return out


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write(
        tmp_path / "toy",
        {"train": [record("a", 1), dropped("b"), record("c", 2)], "val": [record("d", 3)]},
    )
