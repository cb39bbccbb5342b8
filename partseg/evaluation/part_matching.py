"""Which predicted segment matches which true one, and how well their parts agree, for PartPQ.

Works on the table of label pairs of an image (:mod:`partseg.evaluation.overlaps`). The protocols are those of
:mod:`partseg.evaluation.part_panoptic_quality`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.match_counts import Floats
from partseg.evaluation.overlaps import LabelMap, overlaps
from partseg.evaluation.panoptic_matching import Outcome
from partseg.evaluation.part_maps import PartMap
from partseg.evaluation.part_specs import UNKNOWN, PartSpec
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints
from partseg.layout.uids import unpack_uids

PartProtocol = Literal["panoptic_parts", "correct"]

_NUMBERS = 256  # predicted classes and parts are bytes
Bools = NDArray[np.bool_]


class Tables(NamedTuple):
    """What numbers mean, by :func:`tables`.

    Attributes:
        evaluated: bool [256], by class; so are ``things`` and ``with_parts``.
        parts: int64 [10000], the evaluated part of the files' ``sid * 100 + pid``.
    """

    evaluated: Bools
    things: Bools
    with_parts: Bools
    parts: Ints


def tables(spec: PartSpec, protocol: PartProtocol) -> Tables:
    """The tables of a specification under a protocol."""
    evaluated, things, with_parts = np.zeros((3, _NUMBERS), np.bool_)
    for item in spec.classes:
        evaluated[item.sid], things[item.sid], with_parts[item.sid] = True, item.is_thing, bool(item.parts)
    parts = spec.part_numbers(keep_unlisted=protocol == "panoptic_parts")
    return Tables(evaluated, things, with_parts, parts)


class _Rows(NamedTuple):
    """One row per pair of a true and a predicted label, [K].

    Attributes:
        pixels: how many have both labels.
        true: index of the true segment, -1 where there is none.
        true_part: 0 where there is none.
        void: true pixels of no evaluated class.
        crowd: class whose crowd the true pixels are, -1 for none.
        own: index of the predicted segment, -1 where there is none.
        own_part: 255 where it is not known.
    """

    pixels: Ints
    true: Ints
    true_part: Ints
    void: Bools
    crowd: Ints
    own: Ints
    own_part: Ints


def match_parts(
    truth: LabelMap, predicted: PartMap, lookup: Tables, protocol: PartProtocol, where: str
) -> Outcome:
    """Compare one image.

    Args:
        truth: uids.
        predicted: a map of the same size.
        lookup: as :func:`tables`.
        protocol: whose rules are followed.
        where: what errors name.

    Raises:
        PredictionError: the maps differ in size, or one holds a number that is no label.
    """
    found = overlaps(truth, predicted.labels, where=where)
    try:
        uids = unpack_uids(found.truth)
    except ValueError as error:
        raise PredictionError(f"the truth is no panoptic-parts map ({error})", where=where) from error
    ids = predicted.decode(found.predicted, lookup.parts, where=where)

    part = lookup.parts[np.where(uids.pids > 0, uids.sids_pids, uids.sids)]
    known = lookup.evaluated[uids.sids]
    crowd = np.where(lookup.things[uids.sids] & (uids.iids < 0), uids.sids, -1)
    published = protocol == "panoptic_parts"
    # stuff has instances in the original; where a thing has none, its pixels are a crowd
    thing, own_thing = lookup.things[uids.sids] | published, lookup.things[ids.sids] | published
    keys = uids.sids * 1000 + np.where(thing, np.maximum(uids.iids, 0), 0)
    segments, true = _segments(keys, known)
    sids = np.zeros(len(segments), np.int64)
    sids[true[known]] = uids.sids[known]

    # what has no part at all cannot be scored by its parts: it is a crowd
    labelled = _add(true, (part > 0).astype(np.int64), len(segments)) > 0
    unlabelled = lookup.with_parts[sids] & ~labelled
    crowd = np.where(known & _of(unlabelled, true), uids.sids, crowd)

    own_known = lookup.evaluated[ids.sids]
    own_segments, own = _segments(ids.sids << 10 | np.where(own_thing, ids.iids, 0), own_known)
    rows = _Rows(found.pixels, true, part, ~known, crowd, own, ids.pids)
    return _compare(rows, sids, own_segments >> 10, lookup, protocol)


def _segments(keys: Ints, chosen: Bools) -> tuple[Ints, Ints]:
    """The segments in ascending order of their keys, and each row's, -1 where it is not ``chosen``."""
    segments, place = np.unique(keys[chosen], return_inverse=True)
    index = np.full(len(keys), -1)
    index[chosen] = place
    return segments, index


def _add(index: Ints, values: Ints, count: int) -> Ints:
    kept = index >= 0
    return np.bincount(index[kept], values[kept], count).astype(np.int64)


def _of(flags: Bools, index: Ints) -> Bools:
    """The flag of each row's segment, False for none."""
    return np.append(flags, False)[index]


def _compare(rows: _Rows, sids: Ints, own_sids: Ints, lookup: Tables, protocol: PartProtocol) -> Outcome:
    """Matches, mistakes and misses of segments of the classes ``sids`` and ``own_sids``."""
    plain = rows.crowd < 0
    areas = _add(np.where(plain, rows.true, -1), rows.pixels, len(sids))
    own_areas = _add(rows.own, rows.pixels, len(own_sids))
    in_void = _add(np.where(rows.void, rows.own, -1), rows.pixels, len(own_sids))
    own_class = np.append(own_sids, -1)[rows.own]
    in_crowd = _add(
        np.where((rows.crowd >= 0) & (rows.crowd == own_class), rows.own, -1), rows.pixels, len(own_sids)
    )

    both = np.flatnonzero(plain & (rows.true >= 0) & (rows.own >= 0))
    both = both[sids[rows.true[both]] == own_sids[rows.own[both]]]
    pairs, place = np.unique(rows.true[both] * max(len(own_sids), 1) + rows.own[both], return_inverse=True)
    shared = np.bincount(place, rows.pixels[both], len(pairs)).astype(np.int64)
    t, p = np.divmod(pairs, max(len(own_sids), 1))
    iou = shared / (areas[t] + own_areas[p] - in_void[p] - shared)
    match = iou > 0.5
    t, p, iou = t[match], p[match], iou[match]
    scored = lookup.with_parts[sids[t]]
    iou[scored] = _part_iou(rows, t[scored], p[scored], sids[t[scored]], len(sids), len(own_sids), protocol)

    missed = areas > 0
    missed[t] = False
    wrong = (in_void + in_crowd) / own_areas <= 0.5
    wrong[p] = False
    groups = (sids[t], own_sids[wrong], sids[missed])
    kind = np.repeat(np.arange(3), [len(item) for item in groups])
    counts = {name: (kind == number).astype(np.int64) for number, name in enumerate(("tp", "fp", "fn"))}
    return Outcome(np.concatenate(groups), counts, np.concatenate([iou, np.zeros(len(kind) - len(iou))]))


def _part_iou(
    rows: _Rows, t: Ints, p: Ints, sids: Ints, true_count: int, own_count: int, protocol: PartProtocol
) -> Floats:
    """Mean IoU of the parts of M matches; part 0 is all that is outside of a segment.

    Evaluated are all pixels of the image but void, crowds of the class, and those of the true segment that
    have no part. Only rows of one of the two segments are looked at; what is left is background in both.
    """
    matches = len(t)
    of_true, of_own = np.full(true_count + 1, -1), np.full(own_count + 1, -1)
    of_true[t], of_own[p] = np.arange(matches), np.arange(matches)
    first, second = of_true[rows.true], of_own[rows.own]
    in_true = np.flatnonzero(first >= 0)
    in_own = np.flatnonzero((second >= 0) & (second != first))
    match = np.concatenate([first[in_true], second[in_own]])
    row = np.concatenate([in_true, in_own])
    inside = np.arange(len(row)) < len(in_true)  # of the true segment
    true_part = np.where(inside, rows.true_part[row], 0)
    own_part = np.where(second[row] == match, rows.own_part[row], 0)
    ignored = rows.void[row] | (rows.crowd[row] == sids[match]) | (inside & (true_part == 0))

    pixels = rows.pixels[row]
    kept = ~ignored
    cell = match * _NUMBERS
    size = matches * _NUMBERS

    def table(part: Ints, chosen: Bools) -> Ints:
        sums = np.bincount((cell + part)[chosen], pixels[chosen], size)
        return sums.astype(np.int64).reshape(matches, _NUMBERS)

    shared = table(true_part, kept & (true_part == own_part))
    union = table(true_part, kept) + table(own_part, kept) - shared
    if protocol == "panoptic_parts":
        # pixels outside of both segments that count: all but void and crowds of the class, there and here
        void = int(rows.pixels[rows.void].sum())
        crowds = np.bincount(np.maximum(rows.crowd, 0), np.where(rows.crowd >= 0, rows.pixels, 0), _NUMBERS)
        inside_either = np.bincount(match, pixels, matches)
        skipped = rows.void[row] | (rows.crowd[row] == sids[match])
        rest = (
            int(rows.pixels.sum())
            - void
            - crowds[sids].astype(np.int64)
            - (inside_either - np.bincount(match[skipped], pixels[skipped], matches)).astype(np.int64)
        )
        shared[:, 0] += rest
        union[:, 0] += rest
    else:
        union[:, 0] = 0
    union[:, UNKNOWN] = 0
    occurs = union > 0
    sums = np.where(occurs, shared / np.maximum(union, 1), 0).sum(1)
    return np.asarray(sums / np.maximum(occurs.sum(1), 1))
