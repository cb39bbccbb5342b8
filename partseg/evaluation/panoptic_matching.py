"""Which predicted segment of an image matches which true one, for panoptic quality.

The protocols are those of :mod:`partseg.evaluation.panoptic_quality`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.match_counts import Floats
from partseg.evaluation.overlaps import Overlaps, overlaps
from partseg.evaluation.panoptic_image import VOID, PanopticImage
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

PanopticProtocol = Literal["panopticapi", "correct"]


class Outcome(NamedTuple):
    """Every match, mistake and miss of an image.

    Attributes:
        categories: int64 [N].
        counts: "tp", "fp" and "fn", int64 [N] of 0 and 1.
        iou: float64 [N], 0 where there is no match.
    """

    categories: Ints
    counts: dict[str, Ints]
    iou: Floats


def match_segments(
    truth: PanopticImage,
    predicted: PanopticImage,
    known: Sequence[int],
    protocol: PanopticProtocol,
    where: str,
) -> Outcome:
    """Compare the segments of one image.

    Args:
        truth: its true segments.
        predicted: its predicted segments.
        known: categories that a prediction may have.
        protocol: whose rules are followed.
        where: what errors name.

    Raises:
        PredictionError: the maps differ in size, the map and the list of the prediction differ, or a
            predicted segment has an unknown category.
    """
    found = overlaps(truth.labels, predicted.labels, where=where)
    own = _segments(predicted, protocol, where)
    pixels = _check(found, own, known, where)
    return _compare(found, _segments(truth, protocol, where), own, pixels, protocol)


class _Segments(NamedTuple):
    """Segments in ascending order of their ids.

    Attributes:
        place: where in the list each was.
    """

    ids: Ints
    categories: Ints
    is_crowd: NDArray[np.bool_]
    areas: Floats | None
    place: Ints


def _segments(image: PanopticImage, protocol: PanopticProtocol, where: str) -> _Segments:
    """Sorted by id; of an id that occurs twice the last."""
    ids, reverse = np.unique(image.ids[::-1], return_index=True)
    if len(ids) < len(image.ids) and protocol == "correct":
        values, times = np.unique(image.ids, return_counts=True)
        raise PredictionError(
            f"the segment id {values[times > 1][0]} occurs twice: a pixel has one segment",
            where=where,
            fix="give every segment an id of its own",
        )
    place = len(image.ids) - 1 - reverse
    areas = None if image.areas is None else image.areas[place]
    return _Segments(ids, image.category_ids[place], image.is_crowd[place], areas, place)


def _find(segments: _Segments, labels: Ints) -> Ints:
    """Which segment each label is, -1 for none."""
    if not len(segments.ids):
        return np.full(len(labels), -1)
    place = np.minimum(np.searchsorted(segments.ids, labels), len(segments.ids) - 1)
    return np.where(segments.ids[place] == labels, place, -1)


def _check(found: Overlaps, own: _Segments, known: Sequence[int], where: str) -> Ints:
    """Pixels of every predicted segment; panopticapi's checks of a prediction.

    Raises:
        PredictionError: see :func:`match_segments`.
    """
    index = _find(own, found.predicted)
    unlisted = found.predicted[(index < 0) & (found.predicted != VOID)]
    if len(unlisted):
        raise PredictionError(
            f"segment {unlisted[0]} of the predicted map is not in segments_info",
            where=where,
            fix="list every segment of the map; pixels without a segment are 0",
        )
    pixels = _sum(index, found.pixels, len(own.ids))
    if not pixels.all():
        raise PredictionError(
            f"segment {own.ids[pixels == 0][0]} of segments_info has no pixel in the predicted map",
            where=where,
            fix="leave it out of segments_info",
        )
    strange = ~np.isin(own.categories, known)
    if strange.any():
        raise PredictionError(
            f"segment {own.ids[strange][0]} has the unknown category {own.categories[strange][0]}",
            where=where,
            fix="use the category ids of the dataset",
        )
    return pixels


def _sum(index: Ints, pixels: Ints, count: int) -> Ints:
    kept = index >= 0
    return np.bincount(index[kept], pixels[kept], count).astype(np.int64)


def _compare(
    found: Overlaps, true: _Segments, own: _Segments, predicted_areas: Ints, protocol: PanopticProtocol
) -> Outcome:
    t, p = _find(true, found.truth), _find(own, found.predicted)
    counted = _sum(t, found.pixels, len(true.ids))
    published = protocol == "panopticapi"
    areas = true.areas if published and true.areas is not None else counted
    void = found.truth == VOID if published else t < 0
    ignored = _sum(np.where(void, p, -1), found.pixels, len(own.ids))

    pair = (t >= 0) & (p >= 0)
    pair[pair] = true.categories[t[pair]] == own.categories[p[pair]]
    crowd = pair.copy()
    crowd[pair] = true.is_crowd[t[pair]]
    pair &= ~crowd
    union = predicted_areas[p[pair]] + areas[t[pair]] - found.pixels[pair] - ignored[p[pair]]
    iou = np.zeros(len(union))
    np.divide(found.pixels[pair], union, out=iou, where=union > 0)
    match = iou > 0.5
    matched_t, matched_p, iou = t[pair][match], p[pair][match], iou[match]

    if published:
        crowd[crowd] = np.isin(t[crowd], _last_crowds(true))
    ignored = ignored + _sum(np.where(crowd, p, -1), found.pixels, len(own.ids))
    missed = ~true.is_crowd & (counted > 0 if not published else True)
    missed[matched_t] = False
    wrong = ignored / predicted_areas <= 0.5
    wrong[matched_p] = False

    groups = (true.categories[matched_t], own.categories[wrong], true.categories[missed])
    kind = np.repeat(np.arange(3), [len(item) for item in groups])
    counts = {name: (kind == number).astype(np.int64) for number, name in enumerate(("tp", "fp", "fn"))}
    values = np.concatenate([iou, np.zeros(len(kind) - len(iou))])
    return Outcome(np.concatenate(groups), counts, values)


def _last_crowds(true: _Segments) -> list[int]:
    """Of every category the crowd that the list has last."""
    rows = np.flatnonzero(true.is_crowd)
    last = {int(true.categories[row]): int(row) for row in rows[np.argsort(true.place[rows])]}
    return list(last.values())
