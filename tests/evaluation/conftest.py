from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class Kind:
    category_id: int
    name: str
    kind: str
    group: str | None = None


CATEGORIES = (
    Kind(1, "dog", "object"),
    Kind(2, "dog:head", "part", "novel"),
    Kind(3, "cat:head", "part", "base"),
    Kind(4, "cat:tail", "part", "base"),
)


def rectangle(x: int, y: int, w: int, h: int, size: int = 40) -> bytes:
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return bytes(coco_mask.encode(mask)["counts"])


def record(image_id: int, rows: list[tuple[int, tuple[int, int, int, int]]], **flags: Any) -> SimpleNamespace:
    """An image record as the layout hands it out; rows are (category id, box)."""
    n = len(rows)
    boxes = np.array([box for _, box in rows], dtype=np.float64).reshape(-1, 4)
    return SimpleNamespace(
        image_id=image_id,
        file_name=f"{image_id}.png",
        height=40,
        width=40,
        ann_ids=np.arange(n, dtype=np.int64) + 1 + 100 * image_id,
        category_ids=np.array([c for c, _ in rows], dtype=np.int32),
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        rles=[rectangle(*box) for _, box in rows],
        is_crowd=np.zeros(n, bool),
        is_ignore=np.array(flags.get("is_ignore", np.zeros(n, bool)), dtype=bool),
    )


@pytest.fixture
def two_images() -> list[SimpleNamespace]:
    return [
        record(1, [(1, (0, 0, 30, 30)), (2, (2, 2, 10, 10)), (4, (20, 20, 10, 4))]),
        record(2, [(2, (5, 5, 10, 10)), (3, (20, 5, 10, 10))]),
    ]


@pytest.fixture
def box() -> Callable[..., bytes]:
    return rectangle
