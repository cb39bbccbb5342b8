"""How two label maps of one image overlap: the pixels of every pair of labels, from runs.

Segmentation measures need nothing else. Neighbouring pixels mostly agree in both maps, so the maps are cut
where either of them changes, and only those runs are sorted and counted: no mask per segment, no sorting of
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints, Runs, decode_counts, relabel_runs

LabelMap = Runs | NDArray[Any]
"""Column-major runs, integers [H, W], or uint8 [H, W, 3], which mean ``c0 + 256 * c1 + 65536 * c2``."""

_DENSE = 1 << 20  # pairs of labels; more than that are counted by sorting
# what stays in the processor's cache: pixels in a row, and columns and rows that are turned at once
_BLOCK, _STRIP, _ROWS = 1 << 17, 256, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pairs of labels that share pixels.

    Attributes:
        truth: int64 [K].
        predicted: int64 [K].
        pixels: int64 [K], above 0; they add up to height * width.
    """

    truth: Ints
    predicted: Ints
    pixels: Ints


def overlaps(truth: LabelMap, predicted: LabelMap, *, where: object = None) -> Overlaps:
    """Pixels of every pair of labels, in the order of the labels.

    Args:
        truth: a label map.
        predicted: a label map of the same size.
        where: what errors name: the file or the image.

    Raises:
        PredictionError: the maps differ in size, or one is no label map.
    """
    sizes = [_size(item, where) for item in (truth, predicted)]
    if sizes[0] != sizes[1]:
        (height, width), (wanted_height, wanted_width) = sizes[1], sizes[0]
        raise PredictionError(
            f"the predicted map has {width} x {height} pixels, the image {wanted_width} x {wanted_height} "
            "(width x height)",
            where=where,
            fix="predict maps of the original image's size: resize labels with nearest neighbour",
        )
    if isinstance(truth, Runs) or isinstance(predicted, Runs):
        return _count(*_joined(_runs(truth), _runs(predicted)))
    return _count(*_cut(truth, predicted))


def label_pixels(labels: LabelMap, *, where: object = None) -> tuple[Ints, Ints]:
    """The labels of a map in ascending order, and the pixels of each, int64 [S] both.

    Raises:
        PredictionError: it is no label map.
    """
    _size(labels, where)
    runs = _runs(labels)
    values, place = np.unique(runs.labels, return_inverse=True)
    return values, np.bincount(place, runs.lengths, len(values)).astype(np.int64)


def masks_to_map(rles: list[bytes], size: tuple[int, int], *, where: object = None) -> Runs:
    """Masks that do not overlap as one map: pixels of mask i have label i + 1, the others 0.

    Args:
        rles: COCO compressed counts.
        size: height and width.
        where: what errors name.

    Raises:
        PredictionError: a mask has another size, or two masks overlap.
    """
    pixels = size[0] * size[1]
    begin, end, label = [], [], []
    for number, rle in enumerate(rles):
        ends = np.cumsum(_counts(rle, number, where))
        if (ends[-1] if len(ends) else 0) != pixels:
            raise PredictionError(
                f"mask {number} has {ends[-1] if len(ends) else 0} pixels, the image {pixels}",
                where=where,
                fix="predict masks of the original image's size",
            )
        stop = ends[1::2]
        begin.append(ends[0::2][: len(stop)])
        end.append(stop)
        label.append(np.full(len(stop), number + 1))
    starts, stops, labels = (np.concatenate([np.zeros(0, np.int64), *item]) for item in (begin, end, label))
    kept = stops > starts
    order = np.argsort(starts[kept], kind="stable")
    starts, stops, labels = starts[kept][order], stops[kept][order], labels[kept][order]
    both = np.flatnonzero(starts[1:] < stops[:-1])
    if len(both):
        first, second = sorted(labels[both[0] : both[0] + 2].tolist())
        raise PredictionError(
            f"masks {first - 1} and {second - 1} overlap: in a panoptic map a pixel has one segment",
            where=where,
            fix="give every pixel to the mask of the higher score",
        )
    # a run of zeros before every mask's run and behind the last; empty ones are dropped
    bounds = np.concatenate([np.stack([starts, stops], 1).ravel(), [pixels]])
    values = np.zeros(len(bounds), np.int64)
    values[1:-1:2] = labels
    lengths = np.diff(bounds, prepend=0)
    runs = Runs(height=size[0], width=size[1], lengths=lengths[lengths > 0], labels=values[lengths > 0])
    return relabel_runs(runs, runs.labels)


def _counts(rle: bytes, number: int, where: object) -> Ints:
    try:
        return decode_counts(rle)
    except ValueError as error:
        raise PredictionError(f"mask {number} is damaged ({error})", where=where) from error


def _size(labels: LabelMap, where: object) -> tuple[int, int]:
    if isinstance(labels, Runs):
        return labels.height, labels.width
    if labels.ndim == 2 and (labels.dtype.kind in "iu"):
        return labels.shape
    if labels.ndim == 3 and labels.shape[2] == 3 and labels.dtype == np.uint8:
        return labels.shape[:2]
    raise PredictionError(
        f"an array {list(labels.shape)} of {labels.dtype} is no label map",
        where=where,
        fix="give integers [height, width], or uint8 [height, width, 3]",
    )


def _runs(labels: LabelMap) -> Runs:
    """Column-major runs; an array's neighbours may have one label at the border of two strips."""
    if isinstance(labels, Runs):
        return labels
    height, width = labels.shape[:2]
    starts, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for left in range(0, width if height else 0, _STRIP):
        strip = labels[:, left : left + _STRIP]
        columns = np.empty((strip.shape[1], height), "<u4" if labels.ndim == 3 else labels.dtype)
        for top in range(0, height, _ROWS):
            columns[:, top : top + _ROWS] = _packed(strip[top : top + _ROWS]).T
        flat = columns.reshape(-1)
        first = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        starts.append(first + left * height)
        values.append(flat[first].astype(np.int64))
    place = np.concatenate(starts)
    lengths = np.diff(place, append=height * width)
    return Runs(height=height, width=width, lengths=lengths, labels=np.concatenate(values))


def _packed(labels: NDArray[Any]) -> NDArray[Any]:
    """One number per pixel."""
    if labels.ndim == 2:
        return labels
    packed = np.zeros(labels.shape[:2], "<u4")
    channels = packed.view(np.uint8).reshape(*packed.shape, 4)
    for channel in range(3):  # a quarter of the time that the three take together
        channels[..., channel] = labels[..., channel]
    return packed


def _joined(truth: Runs, predicted: Runs) -> tuple[Ints, Ints, Ints]:
    """Both labels of the runs that two maps have together."""
    ends, others = np.cumsum(truth.lengths), np.cumsum(predicted.lengths)
    both = _union(ends, others)
    return (
        truth.labels[np.searchsorted(ends, both)],
        predicted.labels[np.searchsorted(others, both)],
        np.diff(both, prepend=0),
    )


def _union(*places: Ints) -> Ints:
    """The places that are in one of these, each of which is in ascending order."""
    # a stable sort of what is sorted in pieces takes a fortieth of the time of another
    merged = np.sort(np.concatenate(places), kind="stable")
    new = np.ones(len(merged), np.bool_)
    np.not_equal(merged[1:], merged[:-1], out=new[1:])
    return merged[new]


def _cut(truth: NDArray[Any], predicted: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """The same of two arrays, row after row."""
    maps = [np.ascontiguousarray(item) for item in (truth, predicted)]
    pixels = truth.shape[0] * truth.shape[1]
    starts = _union(np.zeros(min(pixels, 1), np.int64), *map(_changes, maps))
    flat = (item.reshape(1, pixels, *item.shape[2:]).take(starts, axis=1) for item in maps)
    first, second = (_packed(item)[0] for item in flat)
    return first.astype(np.int64), second.astype(np.int64), np.diff(starts, append=pixels)


def _changes(labels: NDArray[Any]) -> Ints:
    """Pixels that differ from the one before, row after row; some twice."""
    channels = 1 if labels.ndim == 2 else 3
    values = labels.reshape(-1)
    found = [np.zeros(0, np.int64)]
    last = len(values) - channels
    for start in range(0, last, _BLOCK * channels):
        stop = min(start + _BLOCK * channels, last)
        differs = values[start + channels : stop + channels] != values[start:stop]
        found.append((np.flatnonzero(differs) + start) // channels + 1)
    return np.concatenate(found)


def _count(truth: Ints, predicted: Ints, lengths: Ints) -> Overlaps:
    rows, columns = np.unique(truth), np.unique(predicted)
    # quicker than the inverse that unique gives
    pair = np.searchsorted(rows, truth) * len(columns) + np.searchsorted(columns, predicted)
    if len(rows) * len(columns) <= _DENSE:
        # sums of whole numbers below 2**53 are exact
        pixels = np.bincount(pair, lengths, len(rows) * len(columns)).astype(np.int64)
        pairs = np.flatnonzero(pixels)
        pixels = pixels[pairs]
    else:
        pairs, place = np.unique(pair, return_inverse=True)
        pixels = np.bincount(place, lengths, len(pairs)).astype(np.int64)
    first, second = np.divmod(pairs, max(len(columns), 1))
    return Overlaps(truth=rows[first], predicted=columns[second], pixels=pixels)
