"""Parsed parts matched with true ones, image by image.

A parsed part is *right* if its box overlaps a free true part of the same name by at least one half; surer
parts choose first. Names are compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from partseg.evaluation.instance_overlaps import Shapes, best_overlaps, cell_pairs, shapes
from partseg.evaluation.instance_truth import Flags, Floats
from partseg.evaluation.matching import Pairs, match
from partseg.evaluation.parsed_parts import ParsedPart
from partseg.layout.runs import Ints

OVERLAP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TruePart:
    """One true part.

    Attributes:
        image: row of its image among the true ones.
        name: category name, "object:part".
        box_xywh: pixels.
        rle: COCO compressed counts, or None.
        is_ignore: neither found nor missed counts.
        is_crowd: several at once; the same, and any number of parsed parts may lie in it.
    """

    image: int
    name: str
    box_xywh: tuple[float, float, float, float]
    rle: bytes | None = None
    is_ignore: bool = False
    is_crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImage:
    """An image that the parser looked at and whose true parts are known.

    Attributes:
        image: its row in the parsed split; None where nothing was found in it.
        truth: its row among the true images.
        label: what it is labelled with; empty where that is not known.
        size: height and width, pixels.
    """

    image: int | None
    truth: int
    label: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matched:
    """N parsed and G true parts of known images; true ones are rows of ``true``.

    Attributes:
        found: parsed parts, image after image, the surest of each first.
        true: true parts, image after image.
        found_images: int64 [N], place of each one's image among the known ones.
        true_images: int64 [G].
        counts: bool [N]; what only lies on something ignored is neither right nor wrong.
        true_counts: bool [G]; not what is ignored or part of another object than the image's label.
        other_object: bool [G], what is not ignored but part of another object.
        partner: int64 [N], the true part of each right one; -1 for others.
        nearest: int64 [N], the true part of whatever name or object that each overlaps most, if that is
            by one half or more; -1 for others.
        named_right: bool [N], those that overlap a true part of their own name that much.
        mask_iou: float64 [N], overlap of the masks of a right part and its partner; nan without both.
    """

    found: Sequence[ParsedPart]
    true: Sequence[TruePart]
    found_images: Ints
    true_images: Ints
    counts: Flags
    true_counts: Flags
    other_object: Flags
    partner: Ints
    nearest: Ints
    named_right: Flags
    mask_iou: Floats


def match_parts(
    images: Sequence[KnownImage], parts: Iterable[ParsedPart], true: Iterable[TruePart]
) -> Matched:
    """Match the parts of known images.

    Args:
        images: each at most once.
        parts: parsed parts; those of other images are left out.
        true: true parts; those of other images are left out.
    """
    own = {image.image: place for place, image in enumerate(images) if image.image is not None}
    there = {image.truth: place for place, image in enumerate(images)}
    found = sorted(
        (part for part in parts if part.image in own),
        key=lambda part: (own[part.image], -part.confidence, part.name.lower(), part.box_xywh),
    )
    truth = sorted(
        (part for part in true if part.image in there),
        key=lambda part: (there[part.image], part.name.lower(), part.box_xywh),
    )
    left = _Side(found, [own[part.image] for part in found], images)
    right = _Side(truth, [there[part.image] for part in truth], images)
    crowd = np.array([part.is_crowd for part in truth], np.bool_)
    ignored = crowd | np.array([part.is_ignore for part in truth], np.bool_)
    labels = [images[place].label.lower() for place in right.images.tolist()]
    other = np.array(
        [label not in ("", object_of(part.name).lower()) for label, part in zip(labels, truth, strict=True)],
        np.bool_,
    )
    names = {part.name.lower() for part in found} | {part.name.lower() for part in truth}
    codes = {name: code for code, name in enumerate(sorted(names))}
    keys, true_keys = left.keys(codes), right.keys(codes)
    pairs, order = _pairs(left, right, keys, true_keys, crowd)
    matches = match(pairs, keys[order], (ignored | other)[:, None], crowd, np.array([OVERLAP]))
    partner = np.full(len(found), -1, np.int64)
    partner[order] = matches.dense(len(found))[:, 0, 0]
    void = (partner >= 0) & np.append(ignored | other, False)[partner]
    partner[void] = -1
    nobody = np.zeros(len(truth), np.bool_)
    alike, _ = _best(*_pairs(left, right, keys, true_keys, nobody), ignored)
    any_name, nearest = _best(*_pairs(left, right, left.images, right.images, nobody), ignored)
    return Matched(
        found=found,
        true=truth,
        found_images=left.images,
        true_images=right.images,
        counts=~void,
        true_counts=~(ignored | other),
        other_object=other & ~ignored,
        partner=partner,
        nearest=np.where(any_name >= OVERLAP, nearest, -1),
        named_right=alike >= OVERLAP,
        mask_iou=_mask_overlaps(left, right, partner),
    )


def object_of(name: str) -> str:
    """The object in the name of a part: "dog" of "dog:head"."""
    return name.partition(":")[0]


class _Side:
    """The parts of one side as columns."""

    def __init__(self, parts: Sequence[Any], places: Sequence[int], images: Sequence[KnownImage]) -> None:
        self.parts, self.images = parts, np.array(places, np.int64)
        sizes = np.array([images[place].size for place in places], np.int64).reshape(-1, 2)
        boxes = np.array([part.box_xywh for part in parts], np.float64).reshape(-1, 4)
        self.shapes: Shapes = shapes("bbox", boxes, [], sizes, self.images)

    def keys(self, codes: Mapping[str, int]) -> Ints:
        """A number for each pair of image and name, int64 [N]."""
        names = np.array([codes[part.name.lower()] for part in self.parts], np.int64)
        return np.asarray((self.images << 32) + names)


def _pairs(left: _Side, right: _Side, keys: Ints, true_keys: Ints, crowd: Flags) -> tuple[Pairs, Ints]:
    """Pairs of the same key that may overlap enough, and the order of the rows they are numbered in."""
    order = np.argsort(keys, kind="stable")
    return cell_pairs(left.shapes.at(order), right.shapes, keys[order], true_keys, crowd, OVERLAP), order


def _best(pairs: Pairs, order: Ints, ignored: Flags) -> tuple[Floats, Ints]:
    """The largest overlap of each part with something that is not ignored, and with what."""
    iou, rows = best_overlaps(pairs.where(~ignored[pairs.truth]), len(order), np.arange(len(ignored)))
    back = np.argsort(order, kind="stable")
    return iou[back], rows[back]


def _mask_overlaps(left: _Side, right: _Side, partner: Ints) -> Floats:
    result = np.full(len(partner), np.nan)
    for row in np.flatnonzero(partner >= 0).tolist():
        rles = left.parts[row].rle, right.parts[int(partner[row])].rle
        if None not in rles:
            size = left.shapes.sizes[row].tolist()
            own, there = ({"size": size, "counts": rle} for rle in rles)
            result[row] = coco_mask.iou([own], [there], [0])[0, 0]
    return result
