"""Masks of a training image as runs at its new size: never a stack of full-size pictures in a worker.

A stack of 20 masks of 800 x 1066 pixels is 17 MB, and making it took most of the time of a sample. As runs
they are some ten kB to hand from a worker to the training, which unfolds them on the device that needs them.
The pixels are those of the published training: run-lengths are resized by Pillow's nearest neighbour,
outlines are moved first and drawn at the new size by pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from partseg.errors import TrainingError

Ints = NDArray[np.int64]
Rings = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What happens to the shape of an image: resized from one size to another, then perhaps mirrored."""

    old_height: int
    old_width: int
    height: int
    width: int
    flip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRuns:
    """N masks of one image: of each a window, and which pixels of the windows are set.

    The pixels of all windows are numbered one window after the other, in each down the columns.

    Attributes:
        height: of the image.
        width: of the image.
        windows: int32 [N, 4], xyxy px; everything outside is 0. Empty for an empty mask.
        begins: int32 [R], first pixel of every run, ascending.
        ends: int32 [R], the pixel behind it.
    """

    height: int
    width: int
    windows: NDArray[np.int32]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.windows)

    def dense(self, device: torch.device | str = "cpu") -> Tensor:
        """The masks, uint8 [N, height, width] of 0 and 1."""
        corners = self.windows.tolist()
        sizes = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in corners]
        edges = np.stack([self.begins, self.ends], axis=1).ravel()
        lengths = np.diff(edges, prepend=0, append=sum(sizes))
        pixels: Any = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths)
        masks: Any
        if torch.device(device).type == "cpu":  # numpy turns columns into rows in half of torch's time
            masks = np.zeros((len(self), self.height, self.width), dtype=np.uint8)
        else:
            masks = torch.zeros(len(self), self.height, self.width, dtype=torch.uint8, device=device)
            pixels = torch.from_numpy(pixels).to(device, non_blocking=True)
        starts = accumulate(sizes, initial=0)
        for mask, (x0, y0, x1, y1), start, size in zip(masks, corners, starts, sizes, strict=False):
            mask[y0:y1, x0:x1] = pixels[start : start + size].reshape(x1 - x0, y1 - y0).T
        return torch.as_tensor(masks)


def mask_runs(
    rles: Sequence[bytes | None], outlines: Sequence[Rings | None], geometry: Geometry
) -> MaskRuns | None:
    """The masks of one image after its change of shape; None if one has neither run-lengths nor outlines.

    Args:
        rles: N compressed run-lengths at the old size.
        outlines: N lists of rings (x, y, x, y, ... in old pixels), None or empty where the source has none.
            Outlines come before run-lengths. Rings of fewer than three points do not count.
        geometry: the change.

    Raises:
        TrainingError: run-lengths do not cover the image.
    """
    drawn = [[ring for ring in rings or () if len(ring) >= 6 and not len(ring) % 2] for rings in outlines]
    coded = [(place, rle) for place, rle in enumerate(rles) if rle is not None and not drawn[place]]
    if len(coded) + sum(map(bool, drawn)) < len(rles):
        return None
    pieces = [_resized([rle for _, rle in coded], geometry), _drawn([r for r in drawn if r], geometry)]
    owners = [[place for place, _ in coded], [place for place, rings in enumerate(drawn) if rings]]
    number = np.concatenate(
        [np.array(owner, dtype=np.int64)[piece.mask] for owner, piece in zip(owners, pieces, strict=True)]
    )
    column, top, bottom = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("column", "top", "bottom")
    )
    return _windowed(number, column, top, bottom, len(rles), geometry)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Runs cut at the columns: number of the mask, column, first row, row behind the last; [P] each."""

    mask: Ints
    column: Ints
    top: Ints
    bottom: Ints


def _resized(rles: Sequence[bytes], geometry: Geometry) -> _Pieces:
    """Run-lengths at the old size, resized to the nearest source pixel, then mirrored."""
    pieces = _cut(rles, geometry.old_height, geometry.old_width)
    if (geometry.height, geometry.width) == (geometry.old_height, geometry.old_width):
        column, top, bottom, mask = pieces.column, pieces.top, pieces.bottom, pieces.mask
    else:
        rows = _first_places(geometry.old_height, geometry.height)
        columns = _first_places(geometry.old_width, geometry.width)
        top, bottom = rows[pieces.top], rows[pieces.bottom]
        times = np.where(top < bottom, columns[pieces.column + 1] - columns[pieces.column], 0)
        copy = np.repeat(np.arange(len(times)), times)
        place = np.arange(len(copy)) - np.repeat(np.cumsum(times) - times, times)
        column, mask = columns[pieces.column[copy]] + place, pieces.mask[copy]
        top, bottom = top[copy], bottom[copy]
    return _Pieces(mask, geometry.width - 1 - column if geometry.flip else column, top, bottom)


def _drawn(outlines: Sequence[Rings], geometry: Geometry) -> _Pieces:
    """Outlines moved to their new places and drawn there; the rings of a mask are united."""
    if not outlines:
        return _cut([], geometry.height, geometry.width)
    counts = [len(rings) for rings in outlines]
    lengths = [len(ring) for rings in outlines for ring in rings]
    points = np.concatenate([ring for rings in outlines for ring in rings])
    x = points[0::2] * (geometry.width * 1.0 / geometry.old_width)
    points[0::2] = geometry.width - x if geometry.flip else x
    points[1::2] *= geometry.height * 1.0 / geometry.old_height
    moved = [points[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]
    coded = coco_mask.frPyObjects(moved, geometry.height, geometry.width)
    first = accumulate(counts, initial=0)
    rles = [
        (coded[start] if count == 1 else coco_mask.merge(coded[start : start + count]))["counts"]
        for start, count in zip(first, counts, strict=False)
    ]
    return _cut(rles, geometry.height, geometry.width)


def _cut(rles: Sequence[bytes], height: int, width: int) -> _Pieces:
    """The runs of ones of several masks of one size, cut where they pass from a column to the next."""
    ends = _ends(rles, height * width)
    begin, end = ends[0], ends[1]
    left, right = begin // height, (end - 1) // height
    times = np.where(begin < end, right - left + 1, 0)
    copy = np.repeat(np.arange(len(times)), times)
    column = left[copy] + np.arange(len(copy)) - np.repeat(np.cumsum(times) - times, times)
    head = column * height
    top, bottom = np.maximum(begin[copy] - head, 0), np.minimum(end[copy] - head, height)
    return _Pieces(column // width, column % width, top, bottom)


def _ends(rles: Sequence[bytes], pixels: int) -> tuple[Ints, Ints]:
    """First pixel and pixel behind of every run of ones, the pixels of all masks numbered through.

    The coding is described in :mod:`partseg.layout.runs`; this reads all masks in one go.
    """
    if not rles:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    codes = np.frombuffer(b"".join(rles), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(~codes & 0x20)  # the last character of every number
    first = np.concatenate(([0], last[:-1] + 1))
    shift = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((codes & 0x1F) << shift, first)
    negative = (codes[last] & 0x10) != 0
    values[negative] -= np.int64(1) << (shift[last[negative]] + 5)
    stops = np.searchsorted(last, np.cumsum([len(rle) for rle in rles]) - 1, side="right")
    starts = np.concatenate(([0], stops[:-1]))
    place = np.arange(len(values)) - np.repeat(starts, stops - starts)
    # From the fourth on, a number is the difference to the one two places before.
    odd = np.flatnonzero(place & 1)
    values[odd] = _sums(values[odd], place[odd] == 1)
    even = np.flatnonzero(~place & 1 & (place > 0))
    values[even] = _sums(values[even], place[even] == 2)
    ends = np.cumsum(values)
    if (ends[stops - 1] != pixels * np.arange(1, len(rles) + 1)).any() or values.min() < 0:
        raise TrainingError(f"the run-lengths of a mask do not cover the {pixels} pixels of its image")
    return ends[odd - 1], ends[odd]


def _sums(values: Ints, anew: NDArray[np.bool_]) -> Ints:
    """Running sums that begin again at every ``anew``, of which the first value is one."""
    sums = np.cumsum(values)
    begins = np.flatnonzero(anew)
    before = sums[begins] - values[begins]
    return sums - np.repeat(before, np.diff(begins, append=len(values)))


@lru_cache(maxsize=4096)
def _first_places(old: int, new: int) -> Ints:
    """For every old pixel of a line the first of the new pixels that show it or a later one; [old + 1].

    Asked of Pillow itself, which adds up its steps and so differs from a formula now and then.
    """
    line = Image.fromarray(np.arange(1, old + 1, dtype=np.int32)[None])
    shown = np.asarray(line.resize((new, 1), Image.Resampling.NEAREST))[0].astype(np.int64) - 1
    shown[shown < 0] = old  # beyond the image by rounding: Pillow leaves such a pixel 0
    return np.searchsorted(shown, np.arange(old + 1))


def _windowed(mask: Ints, column: Ints, top: Ints, bottom: Ints, count: int, geometry: Geometry) -> MaskRuns:
    """Pieces of ``count`` masks, in any order, with the smallest windows around them."""
    x0, y0 = np.full(count, geometry.width), np.full(count, geometry.height)
    x1, y1 = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.minimum.at(x0, mask, column)
    np.minimum.at(y0, mask, top)
    np.maximum.at(x1, mask, column + 1)
    np.maximum.at(y1, mask, bottom)
    windows = np.stack([x0, y0, x1, y1], axis=1)
    windows[x1 == 0] = 0
    sides = windows[:, 2:] - windows[:, :2]
    areas = sides.prod(axis=1)
    head = (np.cumsum(areas) - areas)[mask] + (column - x0[mask]) * sides[mask, 1] - y0[mask]
    order = np.argsort(head + top, kind="stable")
    return MaskRuns(
        height=geometry.height,
        width=geometry.width,
        windows=windows.astype(np.int32),
        begins=(head + top)[order].astype(np.int32),
        ends=(head + bottom)[order].astype(np.int32),
    )
