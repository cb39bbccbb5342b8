"""The forms in which COCO-like files write a segmentation, and the masks they stand for."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from partseg.layout.bulk import decode_masks
from partseg.layout.runs import encode_counts

Outline = NDArray[np.float64]

# Sides of the image that an outline may reach beyond it: rasterising takes time and memory with the length of
# the edges, so that one absurd number would take all there is.
_FAR = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation's segmentation.

    Attributes:
        rle: the mask, COCO compressed counts; None where there is none.
        polygons: outlines as in the file; None where it has none.
        written: "polygons", "compressed", "uncompressed" or "empty"; None where there is no segmentation, or
            it is not usable.
        problem: reason and message of a finding.
    """

    rle: bytes | None = None
    polygons: Sequence[Outline] | None = None
    written: str | None = None
    problem: tuple[str, str] | None = None


_NONE = Shape()


def shapes(segmentations: Sequence[Any], size: tuple[int, int]) -> list[Shape]:
    """The segmentations of one image's annotations.

    Args:
        segmentations: as parsed; None where an annotation has none.
        size: height and width of the image.
    """
    found = [_NONE] * len(segmentations)
    drawn = [index for index, item in enumerate(segmentations) if type(item) is list and item]
    for index, shape in zip(drawn, _from_polygons([segmentations[i] for i in drawn], size), strict=True):
        found[index] = shape
    for index, item in enumerate(segmentations):
        if type(item) is dict:
            found[index] = _from_rle(item, size)
        elif type(item) is list:
            if not item:
                found[index] = Shape(written="empty")
        elif item is not None:
            found[index] = _bad("is neither a list nor an object")
    _check_compressed(found, size[0] * size[1])
    return found


def _check_compressed(found: list[Shape], pixels: int) -> None:
    """Whether run-lengths that were not made here are well formed and cover the image; all in one go."""
    places = [place for place, shape in enumerate(found) if shape.written == "compressed"]
    rles = [found[place].rle or b"" for place in places]
    if not rles:
        return
    offsets = np.cumsum([0, *map(len, rles)])
    masks = decode_masks(np.frombuffer(b"".join(rles), np.uint8), offsets)
    for wrong in np.flatnonzero(~masks.readable | (masks.pixels != pixels)).tolist():
        found[places[wrong]] = _bad("has run-lengths that do not fit the image")


def _from_polygons(items: Sequence[list[Any]], size: tuple[int, int]) -> list[Shape]:
    """All outlines of an image in one go, unless there is something odd about one of them."""
    if not items:
        return []
    rings = [ring for item in items for ring in item]
    values = _numbers(rings)
    if values is None:  # find out whose it is
        return [_bad("is not a list of lists of numbers")] if len(items) == 1 else _one_by_one(items, size)
    lengths = [len(ring) for ring in rings]
    if not _usual(values, lengths, size):
        return [_odd_polygons(items[0], size)] if len(items) == 1 else _one_by_one(items, size)
    outlines = _split(values, lengths)
    rles = _rasterise(outlines, size)
    found, first = [], 0
    for item in items:
        last = first + len(item)
        rle = rles[first] if last == first + 1 else coco_mask.merge(rles[first:last])
        found.append(Shape(rle["counts"], outlines[first:last], "polygons"))
        first = last
    return found


def _one_by_one(items: Sequence[list[Any]], size: tuple[int, int]) -> list[Shape]:
    return [shape for item in items for shape in _from_polygons([item], size)]


def _numbers(rings: Sequence[Any]) -> Outline | None:
    """The coordinates of all rings end to end; None if they are not all lists of numbers."""
    if not all(type(ring) is list for ring in rings):
        return None
    values = array("d")  # numpy would take text for numbers
    try:
        for ring in rings:
            values.fromlist(ring)
    except (TypeError, OverflowError):
        return None
    return np.frombuffer(values, np.float64) if values else np.zeros(0, np.float64)


def _usual(values: Outline, lengths: Sequence[int], size: tuple[int, int]) -> bool:
    """Every ring encloses something, somewhere near the image."""
    return (
        all(length >= 6 and not length % 2 for length in lengths)
        and bool(np.abs(values).max() <= (1 + _FAR) * max(size))  # false for nan, too
    )


def _odd_polygons(item: list[Any], size: tuple[int, int]) -> Shape:
    """The outlines of one annotation of which some cannot be drawn."""
    outlines = [np.asarray(ring, np.float64) for ring in item]
    if not all(np.isfinite(outline).all() for outline in outlines):
        return _bad("has a coordinate that is not finite")
    fine = [ring for ring in outlines if len(ring) and _usual(ring, [len(ring)], size)]
    if any(len(ring) >= 6 and not len(ring) % 2 for ring in outlines if not _within(ring, fine)):
        what = ("polygon-far-outside", "has an outline far outside the image, which is left out of its mask")
    else:
        what = ("degenerate-polygon", "has an outline that encloses nothing, which is left out of its mask")
    rle = coco_mask.merge(_rasterise(fine, size))["counts"] if fine else None
    return Shape(rle, outlines, "polygons", what)


def _within(ring: Outline, rings: Sequence[Outline]) -> bool:
    return any(ring is other for other in rings)


def _split(values: Outline, lengths: Sequence[int]) -> list[Outline]:
    outlines, first = [], 0
    for length in lengths:
        outlines.append(values[first : first + length])
        first += length
    return outlines


def _rasterise(outlines: Sequence[Outline], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Pycocotools' masks of outlines of at least three points (it takes four numbers for a box)."""
    rles: list[dict[str, Any]] = coco_mask.frPyObjects(outlines, *size) if outlines else []
    return rles


def _from_rle(item: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    counts = item.get("counts")
    if item.get("size") != list(size):
        return _bad(f"has size {item.get('size')!r:.40}, but the image is {list(size)} (height, width)")
    if item.keys() != {"size", "counts"}:
        return _bad("has other keys than size and counts")
    if type(counts) is str and counts and counts.isascii():
        return Shape(counts.encode(), written="compressed")
    if type(counts) is not list or not all(type(count) is int and count >= 0 for count in counts):
        return _bad("has no run-lengths")
    if sum(counts) != size[0] * size[1]:
        return _bad("has run-lengths that do not fit the image")
    return Shape(encode_counts(counts), written="uncompressed")


def _bad(message: str) -> Shape:
    return Shape(problem=("bad-segmentation", f"{message}; it has no mask here"))
