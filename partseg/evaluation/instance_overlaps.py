"""Overlaps of predictions and truth: pycocotools' own arithmetic, and only within a cell.

Masks are checked first. Run-lengths that do not cover their image would keep pycocotools' loops from ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from partseg.evaluation.instance_truth import Flags, Floats, IouType
from partseg.evaluation.matching import Pairs
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

_MOST = 255  # masks whose area pycocotools 2.0.11 can give at a time
_AT_ONCE = 1 << 17  # characters of run-lengths that are checked at a time

_ANY_SIZE = [1, 1]  # an area does not depend on it


def mask_areas(rles: Sequence[bytes | None]) -> Floats:
    """Pixels of each mask, float64 [N]."""
    parts = [
        coco_mask.area([{"size": _ANY_SIZE, "counts": rle} for rle in rles[start : start + _MOST]])
        for start in range(0, len(rles), _MOST)
    ]
    return np.concatenate([np.zeros(0), *parts])


def check_masks(rles: Sequence[bytes | None], pixels: Ints, image_ids: Ints) -> None:
    """Refuse masks that do not cover their image.

    Args:
        rles: N compressed counts.
        pixels: int64 [N], height times width of each one's image.
        image_ids: int64 [N], for messages.

    Raises:
        PredictionError: names the first image with such a mask.
    """
    start, size = 0, 0
    for stop, rle in enumerate(rles, 1):
        size += len(rle or b"")
        if size >= _AT_ONCE or stop == len(rles):
            _check(rles[start:stop], pixels[start:stop], image_ids[start:stop])
            start, size = stop, 0


def _check(rles: Sequence[bytes | None], pixels: Ints, image_ids: Ints) -> None:
    covered = _covered([rle or b"" for rle in rles])
    wrong = np.flatnonzero(covered != pixels)
    if len(wrong):
        row = int(wrong[0])
        what = "is damaged" if covered[row] < 0 else f"covers {covered[row]} pixels"
        raise PredictionError(
            f"a predicted mask {what}, the image has {pixels[row]} pixels",
            where=f"image {image_ids[row]}",
            fix="predict masks of the original image's size",
        )


def _covered(rles: Sequence[bytes]) -> Ints:
    """Pixels that masks cover, ones and zeros together; -1 for what is no run-length.

    Counts from the fourth on are differences to the one two before, so each number of the code counts for
    itself and for every second count behind it. Any one character that is changed changes the sum.
    """
    text = np.frombuffer(b"".join(rles), np.uint8)
    stops = np.cumsum([len(rle) for rle in rles])
    damaged = np.array([not rle for rle in rles], np.bool_)
    odd = np.flatnonzero((text < 48) | (text > 111))
    damaged[np.searchsorted(stops, odd, side="right")] = True
    filled = np.flatnonzero(~damaged)
    filled = filled[(text[stops[filled] - 1] - 48) & 0x20 == 0]  # the last number has to end
    result = np.full(len(rles), -1, np.int64)
    if not len(filled):
        return result
    if len(filled) < len(rles):
        result[filled] = _covered([rles[row] for row in filled.tolist()])
        return result
    code = text - 48
    ends = np.flatnonzero(code < 0x20)  # last character of every number
    low = (code & 0x1F).astype(np.int32)
    lengths = np.diff(ends, prepend=-1)
    values = (low[ends] ^ 0x10).astype(np.int64) - 0x10  # the last character has the sign
    for back in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > back)
        values[longer] = (values[longer] << 5) | low[ends[longer] - back]
    first = np.searchsorted(ends, np.concatenate(([0], stops[:-1])))
    size = np.diff(first, append=len(ends))
    behind = np.repeat(first + size, size) - np.arange(len(ends)) - 1  # numbers of the mask that follow
    weights = (behind >> 1) + 1
    weights[first] = 1
    return np.asarray(np.add.reduceat(values * weights, first), np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """What is compared: N objects.

    Attributes:
        boxes_xywh: float64 [N, 4], pixels.
        areas: float64 [N], pixels of the masks; of the boxes where there are no masks.
        rles: N compressed counts, or None where boxes are compared.
        sizes: int64 [N, 2], height and width of each one's image.
        image_ids: int64 [N], for messages.
    """

    boxes_xywh: Floats
    areas: Floats
    rles: Sequence[bytes | None] | None
    sizes: Ints
    image_ids: Ints

    def check(self, rows: Ints) -> None:
        """Refuse masks that do not cover their image.

        Raises:
            PredictionError: names the first image with such a mask.
        """
        assert self.rles is not None
        rles = [self.rles[row] for row in rows.tolist()]
        check_masks(rles, self.sizes[rows].prod(axis=1), self.image_ids[rows])

    def at(self, rows: Ints) -> Shapes:
        """Only those, in this order."""
        return Shapes(
            boxes_xywh=self.boxes_xywh[rows],
            areas=self.areas[rows],
            rles=None if self.rles is None else [self.rles[row] for row in rows.tolist()],
            sizes=self.sizes[rows],
            image_ids=self.image_ids[rows],
        )


def shapes(
    iou_type: IouType, boxes_xywh: Floats, rles: Sequence[bytes | None], sizes: Ints, image_ids: Ints
) -> Shapes:
    """What is compared; ``sizes`` [N, 2] are heights and widths.

    Raises:
        PredictionError: a mask is larger than its image, or damaged.
    """
    if iou_type == "bbox":
        areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]
        return Shapes(boxes_xywh=boxes_xywh, areas=areas, rles=None, sizes=sizes, image_ids=image_ids)
    # pycocotools reads on behind the end of counts whose last number is not finished
    open_end = [not rle or bool((rle[-1] - 48) & 0x20) for rle in rles]
    areas = np.zeros(len(rles)) if any(open_end) else mask_areas(rles)
    found = Shapes(boxes_xywh=boxes_xywh, areas=areas, rles=rles, sizes=sizes, image_ids=image_ids)
    found.check(np.flatnonzero((areas > sizes.prod(axis=1)) | np.array(open_end, np.bool_)))
    return found


def cell_pairs(
    found: Shapes, truth: Shapes, keys: Ints, truth_keys: Ints, crowd: Flags, least: float
) -> Pairs:
    """Every prediction with every true one of its cell, as far as they may overlap by ``least``.

    Args:
        found: N predictions.
        truth: G true ones.
        keys: int64 [N], cells of the predictions, ascending.
        truth_keys: int64 [G].
        crowd: bool [G]; how much of a prediction lies in a crowd is its overlap.
        least: overlaps that do not matter are below; 0 to have them all.

    Returns:
        Pairs in the order of the predictions.

    Raises:
        PredictionError: a mask does not cover its image.
    """
    rows, others = crossed(keys, truth_keys)
    if found.rles is None:
        iou = _box_overlaps(found.boxes_xywh[rows], truth.boxes_xywh[others], crowd[others])[1]
        return Pairs(found=rows, truth=others, iou=iou)
    kept = _possible(found, truth, rows, others, crowd, least)
    rows, others = rows[kept], others[kept]
    if not len(rows):
        return Pairs(found=rows, truth=others, iou=np.zeros(0))
    found.check(np.unique(rows))
    truth.check(np.unique(others))
    return Pairs(found=rows, truth=others, iou=_mask_overlaps(found, truth, rows, others, keys[rows], crowd))


def crossed(keys: Ints, truth_keys: Ints) -> tuple[Ints, Ints]:
    """All pairs of the same cell, in the order of the predictions and, for each, of the truth."""
    order = np.argsort(truth_keys, kind="stable")
    begin = np.searchsorted(truth_keys[order], keys, side="left")
    count = np.searchsorted(truth_keys[order], keys, side="right") - begin
    rows = np.repeat(np.arange(len(keys)), count)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, order[np.repeat(begin, count) + place]


def _possible(found: Shapes, truth: Shapes, rows: Ints, others: Ints, crowd: Flags, least: float) -> Ints:
    """Positions of the pairs whose areas and boxes do not rule out an overlap of ``least``.

    What two masks share is at most the smaller of them, and lies in both of their boxes.
    """
    kept = np.flatnonzero(_bound(found.areas[rows], truth.areas[others], np.inf, crowd[others]) >= least)
    rows, others = rows[kept], others[kept]
    shared, _ = _box_overlaps(_mask_boxes(found, rows), _mask_boxes(truth, others), crowd[others])
    bound = _bound(found.areas[rows], truth.areas[others], shared, crowd[others])
    return kept[(bound >= least) & (bound > 0)]


def _bound(areas: Floats, true_areas: Floats, shared: Floats | float, crowd: Flags) -> Floats:
    most = np.minimum(np.minimum(areas, true_areas), shared)
    union = np.where(crowd, areas, areas + true_areas - most)
    return np.divide(most, union, out=np.zeros_like(union), where=union > 0)


def _mask_boxes(item: Shapes, rows: Ints) -> Floats:
    """Boxes of the masks in ``rows`` [P], float64 [P, 4]."""
    used, place = np.unique(rows, return_inverse=True)
    assert item.rles is not None
    sizes = item.sizes[used].tolist()
    # a few at a time: a long list of dictionaries keeps the garbage collector busy
    parts = [
        coco_mask.toBbox(
            [
                {"size": size, "counts": item.rles[row]}
                for row, size in zip(
                    used[start : start + _MOST].tolist(), sizes[start : start + _MOST], strict=True
                )
            ]
        )
        for start in range(0, len(used), _MOST)
    ]
    boxes: Floats = np.concatenate([np.zeros((0, 4)), *parts])[place]
    return boxes


def _box_overlaps(boxes: Floats, others: Floats, crowd: Flags) -> tuple[Floats, Floats]:
    """Common area of P pairs of boxes and their overlap, in the order of operations of pycocotools."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    sides = np.minimum(boxes[:, 2:] + boxes[:, :2], others[:, 2:] + others[:, :2]) - low
    common = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area, other = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(crowd, area, area + other - common)
    return common, np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _mask_overlaps(
    found: Shapes, truth: Shapes, rows: Ints, others: Ints, keys: Ints, crowd: Flags
) -> Floats:
    """Overlaps of P pairs of masks; a cell's are computed together."""
    # predictions of a cell lie together, and so do true ones once they are numbered by cell
    cell = np.cumsum(np.diff(keys, prepend=keys[0]) != 0)
    used, first = np.unique(rows, return_inverse=True)
    true_keys, second = np.unique(cell * len(truth.areas) + others, return_inverse=True)
    true_used = true_keys % len(truth.areas)
    begin = np.flatnonzero(np.diff(cell, prepend=-1))
    left = np.append(first[begin], len(used))
    top = np.searchsorted(true_keys, np.arange(len(begin) + 1) * len(truth.areas))
    assert found.rles is not None
    assert truth.rles is not None
    masks, true_masks = (
        [found.rles[row] for row in used.tolist()],
        [truth.rles[row] for row in true_used.tolist()],
    )
    crowds, sizes = crowd[true_used].astype(np.uint8), found.sizes[rows[begin]].tolist()
    blocks = []
    for size, d0, d1, g0, g1 in zip(
        sizes, left[:-1].tolist(), left[1:].tolist(), top[:-1].tolist(), top[1:].tolist(), strict=True
    ):
        iou = coco_mask.iou(
            [{"size": size, "counts": rle} for rle in masks[d0:d1]],
            [{"size": size, "counts": rle} for rle in true_masks[g0:g1]],
            crowds[g0:g1],
        )
        blocks.append(iou.ravel())
    offset = np.cumsum([0, *map(len, blocks)])[:-1]
    place = (first - left[cell]) * np.diff(top)[cell] + (second - top[cell])
    return np.asarray(np.concatenate(blocks)[offset[cell] + place])


def best_overlaps(pairs: Pairs, predictions: int, ann_ids: Ints) -> tuple[Floats, Ints]:
    """The largest overlap of every prediction and with which annotation; 0 and -1 where there is none."""
    iou, ids = np.zeros(predictions), np.full(predictions, -1, np.int64)
    order = np.lexsort((-pairs.iou, pairs.found))
    first = order[np.flatnonzero(np.diff(pairs.found[order], prepend=-1))]
    first = first[pairs.iou[first] > 0]
    iou[pairs.found[first]], ids[pairs.found[first]] = pairs.iou[first], ann_ids[pairs.truth[first]]
    return iou, ids
