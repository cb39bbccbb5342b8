"""Rules about boxes."""

from __future__ import annotations

import numpy as np

from partseg.layout.checks.columns import Columns
from partseg.layout.checks.found import Found, Rule

# Boxes of other tools reach past the edge by rounding.
_EDGE = 1.0

NOT_FINITE = Rule(
    "box-not-finite", "error", "a box is not four finite numbers with a width and height of 0 on"
)
OUTSIDE = Rule("box-outside-image", "warning", "a box reaches more than one pixel out of its image")
EMPTY = Rule("box-empty", "warning", "a box has no width or no height")
RULES = (NOT_FINITE, OUTSIDE, EMPTY)


def check(columns: Columns, found: Found) -> None:
    """Boxes are finite and lie in their image. Row ranges must be sound."""
    boxes, images = columns.boxes, columns.image_rows()
    sizes = np.stack([columns.widths[images], columns.heights[images]], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(high).all(axis=1)
        finite &= (boxes[:, 2:] >= 0).all(axis=1)
        past = np.maximum(-low, high - sizes).max(axis=1, initial=0)
        outside = finite & (past > _EDGE)
        empty = finite & (boxes[:, 2:] == 0).any(axis=1)
    for rule, broken, what, values in (
        (NOT_FINITE, ~finite, "is not finite, or has a negative size", None),
        (OUTSIDE, outside, "reaches out of its image of {} x {} px", past),
        (EMPTY, empty, "is empty", None),
    ):
        rows = np.flatnonzero(broken)
        found.add(
            rule,
            [f"box {_numbers(boxes[row])} {what.format(*sizes[row])}" for row in rows.tolist()],
            split=columns.name,
            image_ids=columns.ann_images[rows],
            ann_ids=columns.ann_ids[rows],
            values=None if values is None else values[rows],
        )


def _numbers(box: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    return ", ".join(f"{value:.6g}" for value in box.tolist())
