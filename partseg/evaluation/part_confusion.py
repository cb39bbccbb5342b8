"""What parts are taken for: the confusion between the parts of one object class.

Looked at from the truth: of all predictions that overlap a true part by .50 or more, the one of the best
score says what the part was taken for. Nothing means that it was not found. An overlap counts for the true
part that a prediction overlaps most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.errors_by_kind import FOREGROUND, row_finder
from partseg.evaluation.instance_truth import CategoryLike


@dataclass(frozen=True, slots=True, kw_only=True)
class PartConfusion:
    """The parts of one object class.

    Attributes:
        name: of the object class.
        parts: their names, in the order of rows and columns.
        counts: true parts by what they are (rows) and what they were taken for (columns); the last two
            columns are parts of other objects, or objects, and nothing.
    """

    name: str
    parts: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "parts": list(self.parts),
            "columns": [*self.parts, "other", "nothing"],
            "counts": [list(row) for row in self.counts],
        }


def confusion_of_parts(
    table: DetectionTable, categories: Mapping[int, CategoryLike], category_ids: Sequence[int]
) -> tuple[PartConfusion, ...]:
    """Confusion of the parts of every object class that has at least two scored ones, in the order of ids.

    Args:
        table: made with ``details=True``.
        categories: by id; the parts of an object class have names that begin alike: ``dog:head``.
        category_ids: what was scored.

    Raises:
        ValueError: the table was made without details.
    """
    rows = table.detections
    if np.isnan(rows["other_iou"]).any():
        raise ValueError("confusion needs records made with details=True")
    same = rows["iou"] >= rows["other_iou"]
    overlap = np.where(same, rows["iou"], rows["other_iou"])
    at = row_finder(table.truths["ann_id"])(np.where(same, rows["truth_id"], rows["other_truth_id"]))
    chosen = np.flatnonzero((overlap >= FOREGROUND) & (at >= 0))
    order = chosen[np.lexsort((chosen, -overlap[chosen], -rows["score"][chosen], at[chosen]))]
    first = order[np.flatnonzero(np.diff(at[order], prepend=-1))]
    taken_for = np.full(len(table.truths), -1, np.int64)
    taken_for[at[first]] = rows["category_id"][first]
    counted = table.truths["ignored"] & np.uint8(1) == 0
    true = table.truths["category_id"]
    owners: dict[str, list[int]] = {}
    for category in sorted(category_ids):
        if categories[category].kind == "part":
            owners.setdefault(categories[category].name.partition(":")[0], []).append(category)
    found = []
    for owner, parts in owners.items():
        if len(parts) < 2:
            continue
        columns = {category: place for place, category in enumerate(parts)} | {-1: len(parts) + 1}
        counts = np.zeros((len(parts), len(parts) + 2), np.int64)
        for place, category in enumerate(parts):
            labels, numbers = np.unique(taken_for[counted & (true == category)], return_counts=True)
            for label, number in zip(labels.tolist(), numbers.tolist(), strict=True):
                counts[place, columns.get(label, len(parts))] += number
        if counts.any():
            names = tuple(categories[part].name.partition(":")[2] or categories[part].name for part in parts)
            found.append(PartConfusion(name=owner, parts=names, counts=tuple(map(tuple, counts.tolist()))))
    return tuple(found)
