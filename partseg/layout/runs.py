"""Run-lengths: the working form of masks and label maps, byte for byte COCO's compressed encoding.

A mask of H rows and W columns is read column by column. Its *counts* are the lengths of the alternating
runs of zeros and ones, zeros first (so the first count is 0 where the first pixel is set). The compressed
form writes every count from the fourth on as the difference to the one two places before, in groups of five
bits, least significant first, each as a printable character from code 48 on with bit 5 marking "more follows"
(pycocotools ``rleToString``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A label map as column-major runs; neighbouring runs have different labels.

    Attributes:
        lengths: int64 [R], pixels; they add up to height * width.
        labels: int64 [R].
    """

    height: int
    width: int
    lengths: Ints
    labels: Ints

    def to_map(self) -> Ints:
        """The label map, int64 [H, W]."""
        return np.repeat(self.labels, self.lengths).reshape(self.width, self.height).T


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """One mask per label, in ascending order of the label.

    Attributes:
        labels: int64 [S].
        rles: COCO compressed counts, [S].
        areas: int64 [S], pixels.
        boxes_xywh: int64 [S, 4], pixels, last row and column included.
    """

    labels: Ints
    rles: list[bytes]
    areas: Ints
    boxes_xywh: Ints


def label_map_to_runs(label_map: ArrayLike) -> Runs:
    """Column-major runs of an integer (or bool) map [H, W]."""
    array = np.asarray(label_map)
    if array.ndim != 2:
        raise ValueError(f"a label map has two axes, not {array.ndim}")
    height, width = array.shape
    flat = array.ravel(order="F")
    if not flat.size:
        nothing = np.zeros(0, np.int64)
        return Runs(height=height, width=width, lengths=nothing, labels=nothing)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    return Runs(height=height, width=width, lengths=lengths, labels=flat[starts].astype(np.int64))


def relabel_runs(runs: Runs, labels: Ints) -> Runs:
    """The runs with ``labels`` [R] in place of theirs; neighbours that become equal are joined."""
    if not len(labels):
        return runs
    first = np.concatenate(([0], np.flatnonzero(labels[1:] != labels[:-1]) + 1))
    lengths = np.add.reduceat(runs.lengths, first)
    return Runs(height=runs.height, width=runs.width, lengths=lengths, labels=labels[first])


def runs_to_segments(runs: Runs) -> Segments:
    """Masks, areas and boxes of all labels in one pass over the runs (label 0 is a label like any other)."""
    starts = np.cumsum(runs.lengths) - runs.lengths
    order = np.argsort(runs.labels, kind="stable")
    labels, first = np.unique(runs.labels[order], return_index=True)
    begin = starts[order]
    return segments(labels, begin, begin + runs.lengths[order], first, (runs.height, runs.width))


def segments(labels: Ints, begin: Ints, end: Ints, first: Ints, size: tuple[int, int]) -> Segments:
    """Masks, areas and boxes of S segments whose runs lie one after another.

    Args:
        labels: [S].
        begin: [R], first pixel of every run, column by column.
        end: [R], pixel behind the run.
        first: [S], at which run the segment begins.
        size: height and width of the masks.
    """
    if not len(labels):
        return Segments(labels=labels, rles=[], areas=labels, boxes_xywh=np.zeros((0, 4), np.int64))
    height, width = size
    return Segments(
        labels=labels,
        rles=_encode_segments(begin, end, first, height * width),
        areas=np.add.reduceat(end - begin, first),
        boxes_xywh=_boxes(begin, end, first, height),
    )


def _encode_segments(begin: Ints, end: Ints, first: Ints, pixels: int) -> list[bytes]:
    """Compressed counts of S segments whose runs lie one after another from ``first`` [S] on."""
    before = np.concatenate(([0], end[:-1]))
    before[first] = 0
    last = np.append(first[1:], len(begin)) - 1
    tail = pixels - end[last]  # zeros after the last run; not written where there are none
    counts = np.empty(2 * len(begin), np.int64)
    counts[0::2], counts[1::2] = begin - before, end - begin
    has_tail = tail > 0
    counts = np.insert(counts, 2 * (last[has_tail] + 1), tail[has_tail])
    sizes = 2 * (last - first + 1) + has_tail
    offsets = np.cumsum(sizes) - sizes
    return _encode_flat(counts, offsets)


def _boxes(begin: Ints, end: Ints, first: Ints, height: int) -> Ints:
    """Boxes xywh [S, 4]; a run that goes on in the next column touches both the bottom and the top row."""
    left, right = begin // height, (end - 1) // height
    wraps = left != right
    top = np.where(wraps, 0, begin % height)
    bottom = np.where(wraps, height - 1, (end - 1) % height)
    x0, y0 = np.minimum.reduceat(left, first), np.minimum.reduceat(top, first)
    x1, y1 = np.maximum.reduceat(right, first), np.maximum.reduceat(bottom, first)
    return np.stack([x0, y0, x1 - x0 + 1, y1 - y0 + 1], axis=1)


def mask_to_counts(mask: ArrayLike) -> Ints:
    """Alternating run-lengths of a mask [H, W], zeros first."""
    array = np.asarray(mask)
    runs = label_map_to_runs(array if array.dtype == np.bool_ else array != 0)
    if not len(runs.lengths):
        return np.zeros(1, np.int64)
    return np.concatenate(([0], runs.lengths)) if runs.labels[0] else runs.lengths


def encode_counts(counts: ArrayLike) -> bytes:
    """COCO's compressed form of alternating run-lengths [N]."""
    return encode_counts_many([np.asarray(counts, dtype=np.int64)])[0]


def encode_counts_many(counts: Sequence[Ints]) -> list[bytes]:
    """COCO's compressed form of several masks' run-lengths, in one pass."""
    if not all(len(item) for item in counts):
        raise ValueError("a mask has at least one run")
    if not counts:
        return []
    sizes = np.array([len(item) for item in counts])
    return _encode_flat(np.concatenate(counts), np.cumsum(sizes) - sizes)


def _encode_flat(counts: Ints, offsets: Ints) -> list[bytes]:
    """Compressed forms of run-lengths that lie end to end from ``offsets`` on."""
    characters, per_count = _characters(counts, offsets)
    stops = np.cumsum(np.add.reduceat(per_count, offsets)).tolist()
    data = characters.tobytes()
    return [data[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _characters(counts: Ints, offsets: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """Characters of several counts arrays laid end to end from ``offsets`` on; how many each count takes."""
    position = np.arange(len(counts)) - np.repeat(offsets, np.diff(offsets, append=len(counts)))
    values = counts.copy()
    later = np.flatnonzero(position > 2)
    values[later] -= counts[later - 2]
    per_count = np.ones(len(values), np.int64)
    magnitude = values ^ (values >> 63)  # bits beside the sign
    limit = 16
    while len(longer := np.flatnonzero(magnitude >= limit)):
        per_count[longer] += 1
        limit <<= 5
    stops = np.cumsum(per_count)
    group = np.arange(stops[-1]) - np.repeat(stops - per_count, per_count)
    characters = (np.repeat(values, per_count) >> 5 * group & 0x1F) + (48 + 0x20)
    characters[stops - 1] -= 0x20
    return characters.astype(np.uint8), per_count


def decode_counts(rle: bytes) -> Ints:
    """Alternating run-lengths [N] of COCO's compressed form.

    Raises:
        ValueError: the bytes are not a compressed run-length.
    """
    if not rle:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(rle, np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise ValueError("not a compressed run-length")
    stops = np.flatnonzero(~codes & 0x20)
    starts = np.concatenate(([0], stops[:-1] + 1))
    place = np.arange(len(codes)) - np.repeat(starts, stops - starts + 1)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[stops] & 0x10) != 0
    values[negative] -= np.int64(1) << (5 * (place[stops[negative]] + 1))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def mask_to_rle(mask: ArrayLike) -> bytes:
    """COCO compressed counts of a mask [H, W]."""
    return encode_counts(mask_to_counts(mask))


def rle_to_mask(rle: bytes, height: int, width: int) -> Mask:
    """The mask bool [H, W].

    Raises:
        ValueError: the counts do not add up to height * width.
    """
    counts = decode_counts(rle)
    if counts.sum() != height * width or (len(counts) and counts.min() < 0):
        raise ValueError(f"run-lengths cover {counts.sum()} pixels, not {height} x {width}")
    values = np.zeros(len(counts), np.bool_)
    values[1::2] = True
    return np.repeat(values, counts).reshape(width, height).T


def rle_decode_many(rles: Sequence[bytes], height: int, width: int) -> Mask:
    """The masks bool [N, H, W]."""
    masks = np.zeros((len(rles), height, width), np.bool_)
    for mask, rle in zip(masks, rles, strict=True):
        mask[...] = rle_to_mask(rle, height, width)
    return masks


def rle_area(rle: bytes) -> int:
    """Pixels in the mask."""
    return int(decode_counts(rle)[1::2].sum())


def rle_bbox(rle: bytes, height: int) -> tuple[int, int, int, int]:
    """Box xywh of the mask, last row and column included; zeros for an empty mask."""
    return counts_bbox(decode_counts(rle), height)


def counts_bbox(counts: Ints, height: int) -> tuple[int, int, int, int]:
    """Box xywh of a mask of ``height`` rows given its run-lengths; zeros for an empty mask."""
    ends = np.cumsum(counts)
    begin, end = ends[: len(counts) - len(counts) % 2 : 2], ends[1::2]
    if not len(end):
        return 0, 0, 0, 0
    x, y, w, h = _boxes(begin, end, np.zeros(1, np.int64), height)[0].tolist()
    return x, y, w, h
