"""Precision and recall from the records of a matching, exactly as COCOeval and LVISEval accumulate them.

Precision at a recall is the best one at that recall or any larger one, read at 101 recalls. Only right
predictions can raise it, so curves are built from those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_truth import Floats
from partseg.layout.runs import Ints

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is read (COCO)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """Precision and recall of K categories at T overlap thresholds in A size ranges; nan without truth.

    Attributes:
        category_ids: [K].
        precision: float64 [T, R, K, A] at R recalls.
        scores: float64 [T, R, K, A], least score of the predictions needed for that recall; 0 where it is
            not reached.
        recall: float64 [T, K, A], the largest one.
        truths: number of true ones that count, float64 [K, A].
    """

    category_ids: tuple[int, ...]
    precision: Floats
    scores: Floats
    recall: Floats
    truths: Floats

    def rows(self, category_ids: Sequence[int]) -> list[int]:
        """Positions of the categories."""
        place = {category: row for row, category in enumerate(self.category_ids)}
        return [place[category] for category in category_ids]


def mean(values: NDArray[np.float64]) -> float | None:
    """Mean of what is not nan; None where nothing is left."""
    measured = values[~np.isnan(values)]
    return float(np.mean(measured)) if measured.size else None


def accumulate(
    table: DetectionTable,
    category_ids: Sequence[int],
    *,
    limit: int | None = None,
    thresholds: Sequence[int] | None = None,
    ranges: Sequence[int] | None = None,
    recalls: Floats = RECALLS,
) -> Curves:
    """Curves of every category.

    Args:
        table: sorted records.
        category_ids: ascending; the order of the result.
        limit: predictions that count per image and category.
        thresholds: positions of the overlap thresholds to look at; all by default.
        ranges: positions of the size ranges; all by default.
        recalls: where precision is read, ascending.
    """
    levels = range(table.thresholds) if thresholds is None else thresholds
    sizes = range(table.ranges) if ranges is None else ranges
    columns = np.array([size * table.thresholds + level for size in sizes for level in levels])
    found, truths = table.detections, table.truths
    if limit is not None:
        found = found[found["rank"] < limit]
    ids = np.asarray(category_ids, np.int64)
    begin, end = np.searchsorted(found["category_id"], [ids, ids + 1])
    true_begin, true_end = np.searchsorted(truths["category_id"], [ids, ids + 1])
    counted = _bits(truths["ignored"], np.array(list(sizes))) == 0
    right, counts = found["matched"] & ~found["ignored"], ~found["ignored"]
    scores = np.append(found["score"], 0.0)
    needed_for = _NeededFor(recalls)
    shape = (len(sizes), len(levels))
    precision = np.full((len(ids), *shape, len(recalls)), np.nan)
    least = np.full_like(precision, np.nan)
    recall = np.full((len(ids), *shape), np.nan)
    numbers = np.zeros((len(ids), len(sizes)))
    for k in range(len(ids)):
        numbers[k] = counted[true_begin[k] : true_end[k]].sum(0)
        some = numbers[k] > 0
        if not some.any():
            continue
        rows = slice(begin[k], end[k])
        curve = _curve(right[rows], counts[rows], columns)
        values, at, last = curve.at(needed_for, np.repeat(numbers[k], len(levels)))
        at = np.where(at >= 0, at + begin[k], -1)
        at[:, recalls <= 0] = begin[k] if end[k] > begin[k] else -1
        precision[k, some] = values.reshape(*shape, -1)[some]
        least[k, some] = scores[at].reshape(*shape, -1)[some]
        recall[k, some] = last.reshape(shape)[some]
    return Curves(
        category_ids=tuple(ids.tolist()),
        precision=precision.transpose(2, 3, 0, 1),
        scores=least.transpose(2, 3, 0, 1),
        recall=recall.transpose(2, 0, 1),
        truths=numbers,
    )


def recall_at(table: DetectionTable, category_ids: Sequence[int], limit: int) -> Floats:
    """Largest recall [T, K] over all sizes; nan without truth.

    Args:
        table: sorted records.
        category_ids: ascending.
        limit: predictions that count per image and category.
    """
    ids = np.asarray(category_ids, np.int64)
    found = table.detections[table.detections["rank"] < limit]
    counted = table.truths["category_id"][table.truths["ignored"] & np.uint8(1) == 0]
    truths = np.diff(np.searchsorted(counted, [ids, ids + 1]), axis=0)[0].astype(np.float64)
    right = found["matched"] & ~found["ignored"]
    hits = np.empty((table.thresholds, len(ids)))
    for level in range(table.thresholds):
        own = found["category_id"][(right & table.bit(level)) != 0]
        hits[level] = np.diff(np.searchsorted(own, [ids, ids + 1]), axis=0)[0]
    recall: Floats = np.divide(hits, truths, out=np.full_like(hits, np.nan), where=truths > 0)
    return recall


def _bits(numbers: NDArray[Any], columns: Ints) -> NDArray[np.uint8]:
    """Some bits of every number [N], uint8 [N, columns]."""
    octets = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), numbers.dtype.itemsize)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, columns]


class _NeededFor:
    """How many right predictions a recall takes, at least 1."""

    def __init__(self, recalls: Floats) -> None:
        self.recalls = recalls
        self._found: dict[float, Ints] = {}

    def __call__(self, truths: float) -> Ints:
        """For each recall, given the number of true ones."""
        if truths not in self._found:
            reached = np.arange(1, int(truths) + 1) / truths
            self._found[truths] = np.searchsorted(reached, self.recalls, side="left") + 1
        return self._found[truths]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Curve:
    """What right predictions of one category make of S combinations of threshold and size range.

    Attributes:
        start: int64 [S + 1], where the right predictions of each combination begin in the next two.
        row: int64 [H], row of the prediction.
        best: float64 [H], best precision with this prediction or a later one.
    """

    start: Ints
    row: Ints
    best: Floats

    def at(self, needed_for: _NeededFor, truths: Floats) -> tuple[Floats, Ints, Floats]:
        """Precision and row at each recall, [S, R] both (0 and -1: not reached), and the largest recall [S].

        Args:
            needed_for: knows the recalls.
            truths: [S], true ones that count.
        """
        sizes = np.diff(self.start)
        needed = np.stack([needed_for(number) for number in truths.tolist()])
        inside = needed <= sizes[:, None]
        place = np.where(inside, self.start[:-1, None] + needed - 1, len(self.row))
        return (
            np.append(self.best, 0.0)[place],
            np.append(self.row, -1)[place],
            np.divide(sizes, truths, out=np.zeros_like(truths), where=truths > 0),
        )


def _curve(right: NDArray[np.uint64], counts: NDArray[np.uint64], columns: Ints) -> _Curve:
    """The curve of one category.

    Args:
        right: bits of the thresholds and ranges at which each prediction is right, by falling score.
        counts: bits of those at which it is right or wrong.
        columns: the S bits to look at.
    """
    rows = np.flatnonzero(right)
    hit = _bits(right[rows], columns)
    seen = np.cumsum(_bits(counts, columns), axis=0, dtype=np.int32)[rows]
    reached = np.cumsum(hit, axis=0, dtype=np.int32)
    precision = np.where(hit, reached / (seen + np.spacing(1)), 0.0)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    column, place = np.nonzero(hit.T)
    return _Curve(
        start=np.searchsorted(column, np.arange(len(columns) + 1)),
        row=rows[place],
        best=best[place, column],
    )
