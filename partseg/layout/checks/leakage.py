"""Rules about one photo in several splits, of one dataset or of several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from partseg.layout.checks.columns import Columns
from partseg.layout.checks.found import Found, Rule
from partseg.layout.reader import Dataset
from partseg.layout.runs import Ints

LEAK = Rule("photo-in-training", "warning", "a photo of an evaluation split is in a training split, too")
SHARED = Rule("photo-in-two-splits", "note", "a photo is in two splits of one dataset")
REPEATED = Rule("photo-repeated", "warning", "two images of a split are the same photo under different names")
GROUP = Rule("group-cut", "warning", "a city, video or scene is in two splits of one dataset")
RULES = (LEAK, SHARED, REPEATED, GROUP)

_TRAINING = re.compile(r"train", re.IGNORECASE)
_EVALUATION = re.compile(r"val|test|dev", re.IGNORECASE)

# COCO's photos have the same number in all datasets made of them, with a prefix in those of 2014.
_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
# Shorter names ("000005") are not the name of one photo in the world.
_TELLING = 8
_TELLING_DIGITS = 5

Codes = tuple[Ints, Ints, Ints]


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos:
    """The images of one split.

    Attributes:
        names: what is known of a photo wherever it goes: name, height and width; null where the name says
            nothing.
        files: path under the raw root, prefixed by the source; the same file is the same photo.
        digests: sha256, null where unknown.
    """

    dataset: str
    split: str
    image_ids: Ints
    names: Any
    files: Any
    digests: Any
    groups: Any

    @property
    def role(self) -> str:
        """What the name of the split says it is for: "training", "evaluation" or ""."""
        if _TRAINING.search(self.split):
            return "training"
        return "evaluation" if _EVALUATION.search(self.split) else ""


def photos(dataset: Dataset, label: str, columns: Columns) -> Photos:
    """What tells the photos of a split apart from others; ``label`` is how the dataset is called."""
    table = columns.images
    files = table["file_name"].combine_chunks()
    sizes = zip(columns.heights.tolist(), columns.widths.tolist(), strict=True)
    names = [
        None if (name := _photo_name(file)) is None else f"{name} {height}x{width}"
        for file, (height, width) in zip(files.to_pylist(), sizes, strict=True)
    ]
    source = dataset.manifest.image_source
    return Photos(
        dataset=label,
        split=columns.name,
        image_ids=columns.image_ids,
        names=pa.array(names, pa.string()),
        files=pc.binary_join_element_wise(source, files, ":"),
        digests=table["sha256"].combine_chunks().cast(pa.binary()),
        groups=table["group"].combine_chunks(),
    )


def check(splits: Sequence[Photos]) -> list[Any]:
    """Tables of cases of the same photo in two splits; they name the evaluation split, or the second one."""
    found = {one.dataset: Found(one.dataset) for one in splits}
    for one in splits:
        _check_repeats(one, found[one.dataset])
    coded = _code(splits)
    for i, j in combinations(range(len(splits)), 2):
        if splits[i].role == "evaluation" and splits[j].role == "training":
            i, j = j, i
        first, second = splits[i], splits[j]
        leak, together = (
            (first.role, second.role) == ("training", "evaluation"),
            first.dataset == second.dataset,
        )
        if not leak and not together:
            continue  # COCO's and LVIS's training photos are the same; nothing is wrong with that
        rows = _same(coded[i], coded[j])
        where = first.split if together else f"{first.dataset} {first.split}"
        found[second.dataset].add(
            LEAK if leak else SHARED,
            [f"{file.partition(':')[2]} is in {where}, too" for file in second.files.take(rows).to_pylist()],
            split=second.split,
            image_ids=second.image_ids[rows],
        )
        if together:
            _check_groups(first, second, found[second.dataset])
    return [item.table() for item in found.values()]


def _check_repeats(one: Photos, found: Found) -> None:
    """The same bytes under two names; the same name twice is another rule."""
    codes = one.digests.dictionary_encode().indices
    known = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    values = pc.fill_null(codes, -1).to_numpy()
    order = known[np.argsort(values[known], kind="stable")]
    again = np.sort(order[1:][np.diff(values[order]) == 0])
    files = one.files.take(again).to_pylist()
    texts = [f"{file.partition(':')[2]} has the same bytes as an image before it" for file in files]
    found.add(REPEATED, texts, split=one.split, image_ids=one.image_ids[again])


def _check_groups(first: Photos, second: Photos, found: Found) -> None:
    shared = sorted(set(first.groups.unique().to_pylist()) & set(second.groups.unique().to_pylist()) - {None})
    texts = [f"group {group} is in {first.split}, too" for group in shared]
    found.add(GROUP, texts, split=second.split)


def _photo_name(file: str) -> str | None:
    stem = PurePosixPath(file).stem
    if match := _COCO.fullmatch(stem):
        return match[1]
    telling = len(stem) >= _TELLING and sum(character.isdigit() for character in stem) >= _TELLING_DIGITS
    return stem if telling else None


def _code(splits: Sequence[Photos]) -> list[Codes]:
    """Numbers for names, files and digests [I] of every split, the same for equal ones; -1 for null."""
    if not splits:
        return []
    columns = []
    for kind in ("names", "files", "digests"):
        arrays = [getattr(one, kind) for one in splits]
        codes = pc.fill_null(pa.concat_arrays(arrays).dictionary_encode().indices, -1).to_numpy()
        columns.append(np.split(codes.astype(np.int64), np.cumsum([len(array) for array in arrays])[:-1]))
    return list(zip(*columns, strict=True))


def _same(first: Codes, second: Codes) -> Ints:
    """Rows of the second split whose photo is in the first.

    Equal bytes are the same photo. So are equal files and names, unless both digests are known and differ.
    """
    rows = np.zeros(len(second[0]), np.bool_)
    digests, mine = first[2], second[2]
    for kind in range(3):
        known = first[kind] >= 0
        order = np.flatnonzero(known)[np.argsort(first[kind][known], kind="stable")]
        keys = first[kind][order]
        if not len(keys):
            continue
        at = np.minimum(np.searchsorted(keys, second[kind]), len(keys) - 1)
        hit = (keys[at] == second[kind]) & (second[kind] >= 0)
        theirs = digests[order[at]]
        differ = (theirs >= 0) & (mine >= 0) & (theirs != mine)
        rows |= hit & ~differ
    return np.flatnonzero(rows)
