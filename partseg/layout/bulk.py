"""Thousands of masks at once: a column of compressed run-lengths in a few passes over its bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partseg.layout.runs import Ints, Mask

# Groups of five bits in one count: 40 bits, more than any image has pixels. Runs of different masks are told
# apart by the bits above.
_GROUPS = 8
_PIXELS = 5 * _GROUPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The runs of N masks of any sizes, end to end in the order of the masks.

    Attributes:
        readable: bool [N], whether the bytes are compressed run-lengths. Others have no runs.
        pixels: int64 [N], what the run-lengths of zeros and ones add up to.
        areas: int64 [N], pixels that are set.
        mask: int64 [R], to which mask a run of ones belongs.
        begin: int64 [R], its first pixel, column by column.
        end: int64 [R], the pixel behind it.
    """

    readable: Mask
    pixels: Ints
    areas: Ints
    mask: Ints
    begin: Ints
    end: Ints


def decode_masks(data: NDArray[np.uint8], offsets: Ints) -> Masks:
    """Decode COCO's compressed run-lengths.

    Args:
        data: the bytes of all masks end to end.
        offsets: [N + 1], where each mask begins; the last is the end.
    """
    offsets = offsets - offsets[0]
    codes = data[: offsets[-1]] - np.uint8(48)
    readable = _whole(codes, offsets)
    stops = _silence(codes, offsets, readable)
    long = stops[np.diff(stops, prepend=-1) > _GROUPS]
    if len(long):
        readable[np.searchsorted(offsets, long, side="right") - 1] = False
        stops = _silence(codes, offsets, readable)
    values = _values(codes, stops)
    bounds = np.searchsorted(stops, offsets)
    mask = np.repeat(np.arange(len(readable)), np.diff(bounds))
    place = np.arange(len(values)) - bounds[mask]
    for chosen in ((place & 1).astype(np.bool_), (place & 1 == 0) & (place > 0)):
        values[chosen] = _running(values[chosen], mask[chosen])
    sound = (values >= 0) & (values < 1 << _PIXELS)
    if not sound.all():
        readable[mask[~sound]] = False
        values[~readable[mask]] = 0
    end = _running(values, mask)
    ones = np.flatnonzero((place & 1 == 1) & (values > 0))
    whole = np.append(0, np.cumsum(values))[bounds]
    areas = np.bincount(mask[ones], weights=values[ones], minlength=len(readable)).astype(np.int64)
    return Masks(
        readable=readable,
        pixels=np.diff(whole),
        areas=areas,
        mask=mask[ones],
        begin=end[ones] - values[ones],
        end=end[ones],
    )


def select(masks: Masks, chosen: Mask) -> Masks:
    """The same masks, but those not ``chosen`` [N] have no runs."""
    kept = chosen[masks.mask]
    return Masks(
        readable=masks.readable,
        pixels=masks.pixels,
        areas=np.where(chosen, masks.areas, 0),
        mask=masks.mask[kept],
        begin=masks.begin[kept],
        end=masks.end[kept],
    )


def boxes(masks: Masks, heights: Ints) -> Ints:
    """Boxes xywh [N, 4] in pixels of masks of ``heights`` [N] rows; zeros for an empty mask."""
    found = np.zeros((len(masks.areas), 4), np.int64)
    if not len(masks.mask):
        return found
    first = np.flatnonzero(np.diff(masks.mask, prepend=-1))
    height = heights[masks.mask]
    left, top = np.divmod(masks.begin, height)
    right, bottom = np.divmod(masks.end - 1, height)
    wraps = left != right  # a run that goes on in the next column touches both the bottom and the top row
    top[wraps], bottom[wraps] = 0, height[wraps] - 1
    x0, y0 = np.minimum.reduceat(left, first), np.minimum.reduceat(top, first)
    x1, y1 = np.maximum.reduceat(right, first), np.maximum.reduceat(bottom, first)
    found[masks.mask[first]] = np.stack([x0, y0, x1 - x0 + 1, y1 - y0 + 1], axis=1)
    return found


def areas_inside(masks: Masks, other: Ints) -> Ints:
    """Pixels of each mask [N] that lie in the mask ``other`` [N] of the same image; 0 where that is -1."""
    total = np.zeros(len(masks.areas), np.int64)
    asked = np.flatnonzero(other[masks.mask] >= 0)
    if not len(asked):
        return total
    starts = (masks.mask << _PIXELS) + masks.begin
    lengths = masks.end - masks.begin
    before = np.cumsum(lengths) - lengths

    def pixels_up_to(place: Ints) -> Ints:
        run = np.searchsorted(starts, place, side="right") - 1
        return np.where(run < 0, 0, before[run] + np.minimum(place - starts[run], lengths[run]))

    base = other[masks.mask[asked]] << _PIXELS
    covered = pixels_up_to(base + masks.end[asked]) - pixels_up_to(base + masks.begin[asked])
    np.add.at(total, masks.mask[asked], covered)
    return total


def union_areas(masks: Masks, owner: Ints) -> Ints:
    """Pixels covered by all masks that have the same ``owner`` [N], by owner [N]; -1 is nobody."""
    total = np.zeros(len(masks.areas), np.int64)
    chosen = np.flatnonzero(owner[masks.mask] >= 0)
    if not len(chosen):
        return total
    base = owner[masks.mask[chosen]] << _PIXELS
    order = np.argsort(base + masks.begin[chosen], kind="stable")
    begin, end = (base + masks.begin[chosen])[order], (base + masks.end[chosen])[order]
    reached = np.append(begin[0], np.maximum.accumulate(end)[:-1])
    np.add.at(total, begin >> _PIXELS, np.maximum(end - np.maximum(begin, reached), 0))
    return total


def _whole(codes: NDArray[np.uint8], offsets: Ints) -> Mask:
    """Which masks have only characters of the code, and end with the end of a count [N]."""
    whole = np.ones(len(offsets) - 1, np.bool_)
    filled = np.flatnonzero(np.diff(offsets))
    whole[filled] = (codes[offsets[1:][filled] - 1] & 0x20) == 0
    wrong = np.flatnonzero(codes > 63)
    whole[np.searchsorted(offsets, wrong, side="right") - 1] = False
    return whole


def _silence(codes: NDArray[np.uint8], offsets: Ints, kept: Mask) -> Ints:
    """Make zeros of all masks but those ``kept`` [N], in place; where every count ends then."""
    if not kept.all():
        codes[np.repeat(~kept, np.diff(offsets))] = 0
    return np.flatnonzero((codes & 0x20) == 0)


def _values(codes: NDArray[np.uint8], stops: Ints) -> Ints:
    """The signed numbers that end at ``stops``."""
    starts = np.append(0, stops[:-1] + 1)[: len(stops)]
    groups = stops - starts + 1
    values = (codes[starts] & 0x1F).astype(np.int64)
    for group in range(1, int(groups.max(initial=1))):
        longer = np.flatnonzero(groups > group)
        values[longer] |= (codes[starts[longer] + group] & 0x1F).astype(np.int64) << (5 * group)
    negative = np.flatnonzero(codes[stops] & 0x10)
    values[negative] -= np.int64(1) << (5 * groups[negative])
    return np.asarray(values)


def _running(values: Ints, mask: Ints) -> Ints:
    """Running sums [R] that start again with every mask."""
    sums = np.cumsum(values)
    first = np.flatnonzero(np.diff(mask, prepend=-1))
    before = sums[first] - values[first]
    return np.asarray(sums - np.repeat(before, np.diff(first, append=len(mask))))
