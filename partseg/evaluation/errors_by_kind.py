"""What is wrong with predictions, by kind, and what each kind costs: the error types of TIDE.

At an overlap of .50, every prediction that is not right has one kind, the first that fits (Bolya et al. 2020,
"TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv:2008.08115, section 2.2):

- ``localisation``: it overlaps a true one of its category by .10 to .50;
- ``classification``: it overlaps a true one of another category by .50 or more;
- ``duplicate``: it overlaps a true one of its category by .50 or more, which a better one has found;
- ``background``: it overlaps nothing by more than .10;
- ``both``: the rest, wrong place and wrong category.

A true one is ``missed`` where nothing found it and no localisation or classification error points at it. What
a kind costs is how much AP50 rises when an oracle repairs that kind alone: of the errors that point at a true
one which was not found, the best finds it; all others of the kind are removed; missed ones are taken out of
the truth. Costs do not add up to 1 - AP50. ``false_positives`` and ``false_negatives`` cost what removing all
wrong predictions, or all true ones that were not found, would gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.average_precision import accumulate, mean
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_truth import Flags
from partseg.layout.runs import Ints

FOREGROUND, BACKGROUND = 0.5, 0.1
"""Overlaps from which a prediction is at its place, and up to which it is nowhere (TIDE, section 2.2)."""

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")

RIGHT, UNCOUNTED = len(KINDS), len(KINDS) + 1
"""Beside positions in :data:`KINDS`: right predictions, and those that do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKind:
    """One kind of error.

    Attributes:
        count: predictions; of ``missed`` and ``false_negatives``, true ones.
        cost: how much AP50 rises without it, a fraction; None where AP50 is not defined.
    """

    count: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Errors of all categories together.

    Attributes:
        ap50: at an overlap of .50, a fraction.
        kinds: by name, in the order of :data:`KINDS`, and ``false_positives`` and ``false_negatives``.
        classes: errors by kind, of every category that has any: of predictions by the category they name.
    """

    ap50: float | None
    kinds: Mapping[str, ErrorKind]
    classes: Mapping[int, Mapping[str, int]]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "ap50": self.ap50,
            "kinds": {name: asdict(item) for name, item in self.kinds.items()},
            "classes": {str(category): dict(counts) for category, counts in self.classes.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kinds:
    """The kind of everything.

    Attributes:
        detections: int8 [N], position in :data:`KINDS`, :data:`RIGHT` or :data:`UNCOUNTED`.
        pointed_at: int64 [N], row of the true one that a localisation, classification or duplicate error is
            about, or -1.
        missed: bool [G], true ones that are missed.
        unfound: bool [G], true ones that nothing found; those that are missed among them.
    """

    detections: NDArray[np.int8]
    pointed_at: Ints
    missed: Flags
    unfound: Flags


def kinds_of(table: DetectionTable) -> Kinds:
    """The kind of every prediction and true one.

    Args:
        table: made with ``details=True``, whose first threshold is .50.

    Raises:
        ValueError: it was made without details.
    """
    rows = table.detections
    if np.isnan(rows["other_iou"]).any():
        raise ValueError("errors by kind need records made with details=True")
    wrong, right = table.mistakes(), table.hits()
    own, other = rows["iou"], rows["other_iou"]
    found = np.full(len(rows), KINDS.index("both"), np.int8)
    # the later ones take precedence
    found[np.maximum(own, other) <= BACKGROUND] = KINDS.index("background")
    found[own >= FOREGROUND] = KINDS.index("duplicate")
    found[other >= FOREGROUND] = KINDS.index("classification")
    found[(own >= BACKGROUND) & (own <= FOREGROUND) & (own > 0)] = KINDS.index("localisation")
    found[~wrong] = UNCOUNTED
    found[right] = RIGHT
    place = row_finder(table.truths["ann_id"])
    own_truth, other_truth = place(rows["truth_id"]), place(rows["other_truth_id"])
    pointed_at = np.full(len(rows), -1, np.int64)
    for kind, truth in (
        ("localisation", own_truth),
        ("duplicate", own_truth),
        ("classification", other_truth),
    ):
        chosen = found == KINDS.index(kind)
        pointed_at[chosen] = truth[chosen]
    unfound = table.missed()
    covered = np.zeros(len(unfound) + 1, np.bool_)
    covered[pointed_at[(found == 0) | (found == 1)]] = True
    return Kinds(detections=found, pointed_at=pointed_at, missed=unfound & ~covered[:-1], unfound=unfound)


def errors_by_kind(table: DetectionTable, category_ids: Sequence[int], kinds: Kinds | None = None) -> Errors:
    """Count errors by kind, and what each costs.

    Args:
        table: made with ``details=True``.
        category_ids: what was scored.
        kinds: what :func:`kinds_of` gave, where that is at hand.

    Raises:
        ValueError: the table was made without details.
    """
    kinds = kinds_of(table) if kinds is None else kinds
    ids = sorted(category_ids)
    ap50 = _ap50(table, ids)

    def kind(detections: Flags, truths: Flags, repaired: DetectionTable) -> ErrorKind:
        fixed = _ap50(repaired, ids)
        cost = None if ap50 is None or fixed is None else fixed - ap50
        return ErrorKind(count=int(detections.sum() + truths.sum()), cost=cost)

    no_truths, nothing = (
        np.zeros(len(table.truths), np.bool_),
        np.zeros(len(table.detections), np.bool_),
    )
    found: dict[str, ErrorKind] = {}
    for place, name in enumerate(KINDS[:-1]):
        chosen = kinds.detections == place
        found[name] = kind(chosen, no_truths, _repaired(table, kinds, chosen))
    found["missed"] = kind(nothing, kinds.missed, _without(table, nothing, kinds.missed))
    wrong = table.mistakes()
    found["false_positives"] = kind(wrong, no_truths, _without(table, wrong, no_truths))
    found["false_negatives"] = kind(nothing, kinds.unfound, _without(table, nothing, kinds.unfound))
    return Errors(ap50=ap50, kinds=found, classes=_by_class(table, kinds, ids))


def _by_class(table: DetectionTable, kinds: Kinds, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    named, true = table.detections["category_id"], table.truths["category_id"][kinds.missed]
    found = {}
    for category in ids:
        own = kinds.detections[slice(*np.searchsorted(named, [category, category + 1]))]
        counts = np.bincount(own, minlength=len(KINDS))[: len(KINDS)]
        counts[-1] = np.diff(np.searchsorted(true, [category, category + 1]))[0]
        if counts.any():
            found[category] = dict(zip(KINDS, counts.tolist(), strict=True))
    return found


def _repaired(table: DetectionTable, kinds: Kinds, chosen: Flags) -> DetectionTable:
    """Errors of one kind repaired where that finds something, and removed elsewhere."""
    bit = table.bit()
    rows, truths = table.detections.copy(), table.truths.copy()
    helps = np.append(kinds.unfound, False)
    candidates = np.flatnonzero(chosen & helps[kinds.pointed_at])
    order = candidates[np.argsort(-rows["score"][candidates], kind="stable")]
    _, first = np.unique(kinds.pointed_at[order], return_index=True)
    fixed = order[first]
    partner = kinds.pointed_at[fixed]
    rows["matched"][fixed] |= bit
    rows["ignored"][fixed] &= ~bit
    rows["category_id"][fixed] = truths["category_id"][partner]
    truths["matched"][partner] |= bit
    removed = chosen.copy()
    removed[fixed] = False
    kept = rows[~removed]
    order = np.lexsort((kept["rank"], kept["image_id"], -kept["score"], kept["category_id"]))
    return replace(table, detections=kept[order], truths=truths)


def _without(table: DetectionTable, detections: Flags, truths: Flags) -> DetectionTable:
    return replace(table, detections=table.detections[~detections], truths=table.truths[~truths])


def _ap50(table: DetectionTable, ids: Sequence[int]) -> float | None:
    return mean(accumulate(table, ids, thresholds=(0,), ranges=(0,)).precision)


def row_finder(ann_ids: Ints) -> Callable[[Ints], Ints]:
    """A function: the rows of annotations by id, -1 for those that are not there."""
    order = np.argsort(ann_ids, kind="stable")
    in_order = ann_ids[order]

    def place(wanted: Ints) -> Ints:
        at = np.searchsorted(in_order, wanted)
        known = np.append(in_order, -1)[at] == wanted
        return np.where(known & (wanted >= 0), np.append(order, -1)[at], -1)

    return place
