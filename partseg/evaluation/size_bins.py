"""How much of what is true is found, by its size: finer than COCO's three ranges, for parts are small."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from partseg.evaluation.detection_records import DetectionTable

SIDES = (0, 8, 16, 32, 64, 96, 192)
"""Sides of squares in pixels; a bin holds areas from one square's up to the next. COCO's are 32 and 96."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBin:
    """True ones of a range of areas.

    Attributes:
        low: side of the smallest square in pixels.
        high: side of the largest square, None for no limit.
        ground_truth: how many count.
        found: how many of them were found at an overlap of .50.
        found75: at .75.
    """

    low: int
    high: int | None
    ground_truth: int
    found: int
    found75: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def size_bins(table: DetectionTable) -> tuple[SizeBin, ...]:
    """Every bin, from the smallest.

    Args:
        table: records whose thresholds are .50, .55, ... .95.
    """
    truths = table.truths
    counted = truths["ignored"] & np.uint8(1) == 0
    bins = np.digitize(truths["area"], np.square(SIDES[1:]))
    found = []
    for place, low in enumerate(SIDES):
        own = counted & (bins == place)
        hits = [int((own & ((truths["matched"] & table.bit(level)) != 0)).sum()) for level in (0, 5)]
        found.append(
            SizeBin(
                low=low,
                high=SIDES[place + 1] if place + 1 < len(SIDES) else None,
                ground_truth=int(own.sum()),
                found=hits[0],
                found75=hits[1],
            )
        )
    return tuple(found)
