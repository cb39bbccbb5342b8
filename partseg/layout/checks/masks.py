"""Rules about masks, and about parts inside their objects; all masks of some images at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from partseg.layout import bulk
from partseg.layout.checks.columns import Columns, Piece, pieces
from partseg.layout.checks.found import Found, Rule
from partseg.layout.runs import Ints, Mask

MALFORMED = Rule("mask-malformed", "error", "a mask is not a compressed run-length")
SIZE = Rule("mask-size", "error", "a mask does not have the size of its image")
EMPTY = Rule("mask-empty", "warning", "a mask has no pixels")
BOX = Rule("box-not-of-mask", "warning", "a box differs from the box of its mask by more than 2 px")
AREA = Rule("area-not-of-mask", "warning", "an area differs from that of its mask by more than 4 px and 10 %")
REPEATED = Rule("annotation-repeated", "warning", "an image has the same category with the same mask twice")
UNMASKED = Rule("mask-missing", "note", "an annotation has only a box, others of its split have masks")
PART = Rule("part-outside-object", "warning", "less than half of a part lies in its object")
PARTS = Rule("parts-exceed-object", "warning", "the parts of an object together are larger than the object")
RULES = (MALFORMED, SIZE, EMPTY, BOX, AREA, REPEATED, UNMASKED, PART, PARTS)

# Boxes and areas of COCO are those of its polygons: corners are rounded to pixels in the mask, and where
# polygons overlap the area counts twice.
_BOX_PIXELS = 2.0
_AREA_PIXELS = 4.0
_AREA_SHARE = 0.1
_PART_INSIDE = 0.5
_UNION_SHARE = 0.05

Progress = Callable[[int], None]


def check(columns: Columns, linked: bool, found: Found, progress: Progress) -> None:
    """Decode and check every mask. Row ranges must be sound.

    Args:
        columns: a split.
        linked: whether parents are sound, so that parts can be compared with their objects.
        found: where to report.
        progress: told how many annotations are done.
    """
    parents = columns.parent_rows() if linked else np.full(len(columns.ann_ids), -1)
    images = columns.image_rows()
    unmasked = []
    for piece in pieces(columns):
        rows, masks = piece.rows, piece.masks
        pixels = (columns.heights * columns.widths)[images[rows]]
        complete = masks.readable & (masks.pixels == pixels) & piece.present
        add = _Reporter(columns, rows, found)
        _check_form(piece, pixels, add)
        masks = bulk.select(masks, complete)
        _check_values(columns, rows, masks, complete & (masks.areas > 0), columns.heights[images[rows]], add)
        _check_repeats(columns, piece, complete, add)
        _check_parts(masks, np.maximum(parents[rows] - rows.start, -1), add)
        unmasked.append(rows.start + np.flatnonzero(~piece.present))
        progress(rows.stop)
    bare = np.concatenate(unmasked) if unmasked else np.zeros(0, np.int64)
    if len(bare) < len(columns.ann_ids):
        _Reporter(columns, slice(0, None), found)(UNMASKED, bare, lambda row: "it has only a box")
    _check_boxes_of_parts(columns, bare, parents, found)


class _Reporter:
    """Adds cases by their position in a stretch of rows."""

    def __init__(self, columns: Columns, rows: slice, found: Found) -> None:
        self.columns, self.rows, self.found = columns, rows, found

    def __call__(
        self, rule: Rule, places: Ints, text: Callable[[int], str], values: NDArray[Any] | None = None
    ) -> None:
        columns, rows = self.columns, places + self.rows.start
        self.found.add(
            rule,
            [text(place) for place in places.tolist()],
            split=columns.name,
            image_ids=columns.ann_images[rows],
            ann_ids=columns.ann_ids[rows],
            values=values,
        )


def _check_form(piece: Piece, pixels: Ints, add: _Reporter) -> None:
    masks = piece.masks
    add(MALFORMED, np.flatnonzero(~masks.readable), lambda row: "its mask is not a run-length")
    wrong = np.flatnonzero(piece.present & masks.readable & (masks.pixels != pixels))
    text = "its mask covers {} pixels, its image has {}"
    add(SIZE, wrong, lambda row: text.format(masks.pixels[row], pixels[row]))
    empty = piece.present & masks.readable & (masks.pixels == pixels) & (masks.areas == 0)
    add(EMPTY, np.flatnonzero(empty), lambda row: "its mask is empty")


def _check_values(
    columns: Columns, rows: slice, masks: bulk.Masks, asked: Mask, heights: Ints, add: _Reporter
) -> None:
    """Boxes and areas against the masks."""
    boxes, stated = bulk.boxes(masks, heights), columns.boxes[rows]
    with np.errstate(invalid="ignore"):
        low = np.abs(boxes[:, :2] - stated[:, :2])
        high = np.abs(boxes[:, :2] + boxes[:, 2:] - stated[:, :2] - stated[:, 2:])
    apart = np.maximum(low, high).max(axis=1, initial=0)
    wrong = np.flatnonzero(asked & (apart > _BOX_PIXELS))
    add(BOX, wrong, lambda row: f"its box is {apart[row]:.1f} px off the box of its mask", apart[wrong])
    areas = columns.areas[rows]
    gap = np.abs(areas - masks.areas)
    wrong = np.flatnonzero(asked & ~(gap <= np.maximum(_AREA_PIXELS, _AREA_SHARE * masks.areas)))
    text = "its area is {:.0f} px, that of its mask {}"
    add(AREA, wrong, lambda row: text.format(areas[row], masks.areas[row]), gap[wrong])


def _check_repeats(columns: Columns, piece: Piece, complete: Mask, add: _Reporter) -> None:
    rows = piece.rows
    codes = piece.rles.dictionary_encode().indices
    shapes = pc.fill_null(codes, 0).to_numpy().astype(np.int64)
    boxes = np.nan_to_num(columns.boxes[rows]).copy()
    boxes[piece.present] = 0  # the mask says it all
    keys = (
        *boxes.T,
        np.where(piece.present, shapes, -1),
        columns.category_ids[rows],
        columns.ann_images[rows],
    )
    order = np.lexsort(keys)
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for key in keys:
        same &= np.diff(key[order]) == 0
    again = np.sort(order[1:][same])
    again = again[complete[again] | ~piece.present[again]]
    add(REPEATED, again, lambda row: "its image has the same annotation again")


def _check_parts(masks: bulk.Masks, parents: Ints, add: _Reporter) -> None:
    """Masks of parts against those of their objects; ``parents`` are positions in the same piece."""
    filled = masks.areas > 0
    owner = np.where(filled & filled[parents], parents, -1)
    inside = bulk.areas_inside(masks, owner)
    share = inside / np.maximum(masks.areas, 1)
    wrong = np.flatnonzero((owner >= 0) & (share < _PART_INSIDE))
    text = "only {:.0%} of the part lies in its object"
    add(PART, wrong, lambda row: text.format(share[row]), 1 - share[wrong])
    union = bulk.union_areas(masks, owner)
    excess = union - masks.areas
    wrong = np.flatnonzero(filled & (excess > np.maximum(_AREA_PIXELS, _UNION_SHARE * masks.areas)))
    text_of_parts = "its parts have {} px, itself {}"
    add(PARTS, wrong, lambda row: text_of_parts.format(union[row], masks.areas[row]), excess[wrong])


def _check_boxes_of_parts(columns: Columns, bare: Ints, parents: Ints, found: Found) -> None:
    """Boxes of parts against those of their objects, where one of the two has no mask."""
    without = np.zeros(len(columns.ann_ids), np.bool_)
    without[bare] = True
    rows = np.flatnonzero((parents >= 0) & (without | without[parents]))
    mine, theirs = columns.boxes[rows], columns.boxes[parents[rows]]
    with np.errstate(invalid="ignore"):
        low = np.maximum(mine[:, :2], theirs[:, :2])
        high = np.minimum(mine[:, :2] + mine[:, 2:], theirs[:, :2] + theirs[:, 2:])
        area = mine[:, 2] * mine[:, 3]
        share = np.maximum(high - low, 0).prod(axis=1) / np.where(area > 0, area, 1)
    wrong = (area > 0) & (share < _PART_INSIDE)
    shares = dict(zip(rows.tolist(), share.tolist(), strict=True))
    add = _Reporter(columns, slice(0, None), found)
    text = "only {:.0%} of the part's box lies in the box of its object"
    add(PART, rows[wrong], lambda row: text.format(shares[row]), 1 - share[wrong])
