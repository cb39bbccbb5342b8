"""Predictions matched with the truth, greedily by score, for every overlap threshold and size range at once.

The rule is that of COCOeval (pycocotools) and LVISEval (lvis-api). A *cell* is what one category has in one
image. In it, predictions come by falling score, and each takes the free true one that it overlaps most, if
that is at least the threshold; one that counts is preferred to one that is ignored, and of two equal overlaps
the later one is taken.

Only pairs that overlap enough for the lowest threshold can ever match, so nothing else is looked at: the n-th
such prediction of all cells is settled in one step of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.instance_truth import Flags, Floats
from partseg.layout.runs import Ints

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps from .50 to .95 in steps of .05, exactly as COCOeval has them."""

AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
"""Pixels, both ends included (COCO)."""

_CERTAIN = 1 - 1e-10  # a threshold of 1 is met by what is equal up to rounding (COCOeval)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Predictions and true ones of the same cell, and their overlap; in the order of the predictions.

    Attributes:
        found: int64 [P], row of the prediction.
        truth: int64 [P], row of the true one; ascending within a prediction.
        iou: float64 [P].
    """

    found: Ints
    truth: Ints
    iou: Floats

    def where(self, kept: Flags) -> Pairs:
        """The pairs that a mask [P] names."""
        return Pairs(found=self.found[kept], truth=self.truth[kept], iou=self.iou[kept])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """What those M of N predictions are matched with that overlap anything enough.

    Attributes:
        rows: int64 [M], ascending.
        truth: int32 [M, A, T], row of the true one in each size range and at each threshold, or -1.
    """

    rows: Ints
    truth: NDArray[np.int32]

    def dense(self, predictions: int) -> NDArray[np.int32]:
        """The same for all predictions, int32 [N, A, T]."""
        result = np.full((predictions, *self.truth.shape[1:]), -1, np.int32)
        result[self.rows] = self.truth
        return result


def ignored_by_area(areas: Floats, ranges: Floats) -> Flags:
    """Which of N areas lie outside of each range: bool [N, A]."""
    return (areas[:, None] < ranges[:, 0]) | (areas[:, None] > ranges[:, 1])


def match(
    pairs: Pairs,
    cells: Ints,
    truth_ignored: Flags,
    truth_again: Flags,
    thresholds: Floats = THRESHOLDS,
) -> Matches:
    """What every prediction is matched with.

    Args:
        pairs: candidates; predictions come by cell, and in a cell by falling score.
        cells: int64 [N], which cell each prediction is in.
        truth_ignored: bool [G, A], true ones that do not count in each size range.
        truth_again: bool [G], those that can be matched any number of times.
        thresholds: ascending.
    """
    limits = np.minimum(thresholds, _CERTAIN)
    pairs = pairs.where(pairs.iou >= limits[0])
    table = _Candidates(pairs, cells)
    truth = np.full((len(table.found), truth_ignored.shape[1], len(limits)), -1, np.int32)
    for width in np.unique(table.widths).tolist():
        _match_width(table, width, limits, truth_ignored, truth_again, truth)
    return Matches(rows=table.found, truth=truth)


class _Candidates:
    """The pairs by cell: which predictions and true ones occur in each, and at which place."""

    def __init__(self, pairs: Pairs, cells: Ints) -> None:
        self.pairs = pairs
        first = np.flatnonzero(np.diff(pairs.found, prepend=-1))
        self.found = pairs.found[first]  # predictions that have candidates
        self.row = np.cumsum(np.diff(pairs.found, prepend=-1) != 0) - 1  # of each pair, in ``found``
        cell = cells[self.found]
        self.begin = np.flatnonzero(np.diff(cell, prepend=-1))  # first prediction of each cell
        self.count = np.diff(self.begin, append=len(cell))
        self.cell = np.repeat(np.arange(len(self.begin)), self.count)  # of each prediction
        # true ones of each cell, in their order
        size = int(pairs.truth.max(initial=0)) + 1
        key, place = np.unique(self.cell[self.row] * size + pairs.truth, return_inverse=True)
        owner = key // size
        start = np.flatnonzero(np.diff(owner, prepend=-1))
        sizes = np.diff(start, append=len(key))
        self.truth, self.truth_cell = key % size, owner
        self.truth_place = np.arange(len(key)) - np.repeat(start, sizes)
        self.column = self.truth_place[place]  # of each pair
        self.widths = 1 << np.ceil(np.log2(sizes)).astype(np.int64)  # of the tables of each cell


def _match_width(
    table: _Candidates,
    width: int,
    limits: Floats,
    truth_ignored: Flags,
    truth_again: Flags,
    result: NDArray[np.int32],
) -> None:
    """Settle the cells whose true ones fit into ``width`` columns, the fullest cells first."""
    own = np.flatnonzero(table.widths == width)
    own = own[np.argsort(-table.count[own], kind="stable")]
    place = np.full(len(table.begin), -1)
    place[own] = np.arange(len(own))
    rows = np.flatnonzero(place[table.cell] >= 0)
    row_place = np.full(len(table.found), -1)
    row_place[rows] = np.arange(len(rows))
    own_pairs = np.flatnonzero(row_place[table.row] >= 0)
    iou = np.full((len(rows), width), -1.0)
    iou[row_place[table.row[own_pairs]], table.column[own_pairs]] = table.pairs.iou[own_pairs]
    # thresholds met, and the order of preference among the true ones of a cell
    met = np.searchsorted(limits, iou, side="right").astype(np.int8)
    order = np.argsort(np.argsort(iou, axis=1, kind="stable"), axis=1).astype(np.int16)

    kept = np.flatnonzero(place[table.truth_cell] >= 0)
    cell, column, truth = place[table.truth_cell[kept]], table.truth_place[kept], table.truth[kept]
    ranges, levels = truth_ignored.shape[1], len(limits)
    target = np.full((len(own), width), -1, np.int32)
    target[cell, column] = truth
    again = np.zeros((len(own), width), np.bool_)
    again[cell, column] = truth_again[truth]
    bonus = np.zeros((len(own), ranges, 1, width), np.int16)  # what counts goes before what is ignored
    bonus[cell, :, 0, column] = width * ~truth_ignored[truth]
    free = np.ones((len(own), ranges, levels, width), np.bool_)
    level = np.arange(levels, dtype=np.int8)[:, None]
    count, begin = table.count[own], row_place[table.begin[own]]
    for step in range(int(count[0])):
        active = int(np.searchsorted(-count, -step, side="left"))  # cells with more than ``step`` of them
        now = begin[:active] + step
        possible = free[:active] & (met[now][:, None, None, :] > level)
        value = np.where(possible, order[now][:, None, None, :] + bonus[:active], np.int16(-1))
        best = value.argmax(axis=3)
        hit = np.nonzero(np.take_along_axis(value, best[..., None], axis=3)[..., 0] >= 0)
        chosen = best[hit]
        free[(*hit, chosen)] = again[hit[0], chosen]
        result[rows[now[hit[0]]], hit[1], hit[2]] = target[hit[0], chosen]
