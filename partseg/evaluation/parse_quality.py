"""Whether to trust a parse: its parts against true ones, wherever somebody knows them.

True parts count in the images that the parser looked at, those in which it found nothing included, and as far
as they belong to the object that the image is labelled with: a parser names no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from partseg.evaluation.instance_truth import Flags, Floats
from partseg.evaluation.parse_matching import OVERLAP, KnownImage, Matched, TruePart, match_parts
from partseg.evaluation.parsed_parts import ParsedPart
from partseg.layout.runs import Ints

_STEPS = 10  # thresholds of confidence, with as many parts between each two


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts of some parts; shares are None where there is nothing to take them of.

    Attributes:
        parsed: parsed parts.
        true: true parts.
        right: parsed parts that are right, which is how many true parts were found.
        on_parts: parsed parts whose box overlaps any true part by one half, whatever its name.
        named_right: those of them that overlap one of their own name that much.
        masks: right parts where both have a mask.
        mask_overlap: sum of the overlaps of these masks.
    """

    parsed: int = 0
    true: int = 0
    right: int = 0
    on_parts: int = 0
    named_right: int = 0
    masks: int = 0
    mask_overlap: float = 0.0

    @property
    def precision(self) -> float | None:
        """Share of the parsed parts that are right."""
        return _share(self.right, self.parsed)

    @property
    def recall(self) -> float | None:
        """Share of the true parts that were found."""
        return _share(self.right, self.true)

    @property
    def label_accuracy(self) -> float | None:
        """Share of the boxes on a true part that have its name."""
        return _share(self.named_right, self.on_parts)

    @property
    def mask_iou(self) -> float | None:
        """Mean overlap of the masks of right parts with those of the true ones."""
        return _share(self.mask_overlap, self.masks)

    def as_dict(self) -> dict[str, Any]:
        """Counts and shares, as JSON values."""
        shares = ("precision", "recall", "label_accuracy", "mask_iou")
        return {**asdict(self), **{name: getattr(self, name) for name in shares}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What is left of a parse above a confidence.

    Attributes:
        confidence: parts below it are left out.
        kept: parts that are not.
        images: images that keep a part.
        precision: of what is kept; None if nothing is.
        recall: of what is kept; None without true parts.
    """

    confidence: float
    kept: int
    images: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseQuality:
    """How good a parse is.

    Attributes:
        overall: everything.
        groups: by base and novel, where the vocabulary has groups.
        paths: by what found the parts; true parts by what looks at images of their label.
        labels: by label of the image.
        parts: by name of the part.
        group_of: group of each of these names that has one.
        cuts: for ``all`` and for each of several paths what thresholds of confidence leave, ascending.
        confused: (true name, parsed name, parts), the most frequent first.
        other_objects: true parts of objects that the images are not labelled with; not counted elsewhere.
    """

    overall: Tally
    groups: Mapping[str, Tally] = field(default_factory=dict)
    paths: Mapping[str, Tally] = field(default_factory=dict)
    labels: Mapping[str, Tally] = field(default_factory=dict)
    parts: Mapping[str, Tally] = field(default_factory=dict)
    group_of: Mapping[str, str] = field(default_factory=dict)
    cuts: Mapping[str, tuple[Cut, ...]] = field(default_factory=dict)
    confused: tuple[tuple[str, str, int], ...] = ()
    other_objects: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        tables = {
            name: {key: tally.as_dict() for key, tally in getattr(self, name).items()}
            for name in ("groups", "paths", "labels", "parts")
        }
        for name, row in tables["parts"].items():
            row["group"] = self.group_of.get(name)
        return {
            "iou": OVERLAP,
            "overall": self.overall.as_dict(),
            **tables,
            "thresholds": {path: [asdict(cut) for cut in cuts] for path, cuts in self.cuts.items()},
            "confusion": [
                {"true": true, "parsed": parsed, "parts": count} for true, parsed, count in self.confused
            ],
            "true_parts_of_other_objects": self.other_objects,
        }


def parse_quality(
    images: Sequence[KnownImage],
    parts: Iterable[ParsedPart],
    true: Iterable[TruePart],
    groups: Mapping[str, str] | None = None,
) -> ParseQuality:
    """Compare parsed parts with true ones.

    Args:
        images: where the comparison holds.
        parts: parsed parts; those of other images do not count.
        true: true parts; those of other images do not count.
        groups: group of the part names that have one.
    """
    matched = match_parts(images, parts, true)
    groups = {name.lower(): group for name, group in (groups or {}).items()}
    every = [part.name for part in matched.found] + [part.name for part in matched.true]
    spelt = {name.lower(): name for name in every}
    path_of = _paths_of_labels(matched.found)
    true_paths = [path_of.get(images[place].label, "") for place in matched.true_images.tolist()]

    def names(parts: Sequence[ParsedPart] | Sequence[TruePart]) -> list[str]:
        return [part.name.lower() for part in parts]

    def grouped(parts: Sequence[ParsedPart] | Sequence[TruePart]) -> list[str]:
        return [groups.get(name, "") for name in names(parts)]

    return ParseQuality(
        overall=_tallies(matched, [""] * len(matched.found), [""] * len(matched.true)).get("", Tally()),
        groups=_named(_tallies(matched, grouped(matched.found), grouped(matched.true))),
        paths=_named(_tallies(matched, [part.path for part in matched.found], true_paths)),
        labels=_named(
            _tallies(
                matched,
                [part.label for part in matched.found],
                [images[place].label for place in matched.true_images.tolist()],
            )
        ),
        parts=_named(
            _tallies(
                matched,
                [spelt[name] for name in names(matched.found)],
                [spelt[name] for name in names(matched.true)],
            )
        ),
        group_of={name: groups[key] for key, name in spelt.items() if key in groups},
        cuts=_cuts(matched, true_paths),
        confused=_confused(matched),
        other_objects=int(matched.other_object.sum()),
    )


def _tallies(matched: Matched, found_keys: Sequence[str], true_keys: Sequence[str]) -> dict[str, Tally]:
    """The parts of each key, in the order of the keys."""
    keys = sorted({*found_keys, *true_keys})
    code = {key: number for number, key in enumerate(keys)}
    own = np.array([code[key] for key in found_keys], np.int64)
    there = np.array([code[key] for key in true_keys], np.int64)

    def count(rows: Flags) -> Ints:
        return np.bincount(own[rows & matched.counts], minlength=len(keys))

    right, masks = matched.partner >= 0, ~np.isnan(matched.mask_iou)
    columns = {
        "parsed": count(matched.counts),
        "true": np.bincount(there[matched.true_counts], minlength=len(keys)),
        "right": count(right),
        "on_parts": count(matched.nearest >= 0),
        "named_right": count(matched.named_right),
        "masks": count(masks),
        "mask_overlap": np.bincount(own[masks], matched.mask_iou[masks], len(keys)),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {key: Tally(**dict(zip(columns, row, strict=True))) for key, row in zip(keys, rows, strict=True)}


def _named(tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    """Without what has no name and what is empty: all of it is ignored."""
    return {key: tally for key, tally in tallies.items() if key and (tally.parsed or tally.true)}


def _paths_of_labels(parts: Iterable[ParsedPart]) -> dict[str, str]:
    """Which path images of a label take: a label decides it, so its other images tell."""
    seen = Counter((part.label, part.path) for part in parts)
    return {label: path for (label, path), _ in sorted(seen.items(), key=lambda pair: (pair[1], pair[0]))}


def _cuts(matched: Matched, true_paths: Sequence[str]) -> dict[str, tuple[Cut, ...]]:
    paths = np.array([part.path for part in matched.found], np.str_)
    there = np.array(true_paths, np.str_)
    names = np.unique(paths).tolist()
    result = {"all": _cut(matched, matched.counts, int(matched.true_counts.sum()))}
    for name in names if len(names) > 1 else ():
        true = int((matched.true_counts & (there == name)).sum())
        result[name] = _cut(matched, matched.counts & (paths == name), true)
    return result


def _cut(matched: Matched, rows: Flags, true: int) -> tuple[Cut, ...]:
    confidence: Floats = np.array([part.confidence for part in matched.found], np.float64)
    if not rows.any():
        return ()
    levels = np.quantile(confidence[rows], np.arange(_STEPS) / _STEPS)
    result: list[Cut] = []
    for level in sorted({0.0, *(np.floor(levels.clip(0) * 100) / 100).tolist()}):
        kept = rows & (confidence >= level)
        right = int((kept & (matched.partner >= 0)).sum())
        if not result or int(kept.sum()) < result[-1].kept:
            result.append(
                Cut(
                    confidence=level,
                    kept=int(kept.sum()),
                    images=len(np.unique(matched.found_images[kept])),
                    precision=_share(right, int(kept.sum())),
                    recall=_share(right, true),
                )
            )
    return tuple(result)


def _confused(matched: Matched) -> tuple[tuple[str, str, int], ...]:
    wrong = np.flatnonzero(matched.counts & (matched.nearest >= 0) & ~matched.named_right).tolist()
    seen = Counter((matched.true[int(matched.nearest[i])].name, matched.found[i].name) for i in wrong)
    ranked = sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple((*names, count) for names, count in ranked)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
