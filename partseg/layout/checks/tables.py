"""Rules about ids, links, categories and labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from partseg.layout.checks.columns import Columns
from partseg.layout.checks.found import Found, Rule
from partseg.layout.reader import Dataset
from partseg.layout.runs import Ints

COUNTS = Rule("counts-differ", "error", "images, dropped records, objects or parts are not as many as stated")
IMAGE_IDS = Rule("image-ids", "error", "image ids do not rise from 1, or one is used twice in the dataset")
ANN_IDS = Rule("annotation-ids", "error", "annotation ids do not rise from 1 within a split")
RANGES = Rule("row-ranges", "error", "the row range of an image is not that of its annotations")
PARENT = Rule("parent", "error", "a parent is not an object before its part in the same image")
CATEGORY_TABLE = Rule("category-table", "error", "a category has a used id or name, or an unknown parent")
CATEGORY = Rule("category-unknown", "error", "an annotation has a category that is not in the table")
LABEL = Rule("label-unknown", "error", "an image-level label is not in the category table")
SCORE = Rule("score-range", "error", "a score is not between 0 and 1")
ORIGIN = Rule("origin-missing", "error", "an annotation does not say who or what made it")
RUN = Rule("run-missing", "warning", "an annotation made by a machine does not say by which run")
PARENT_CATEGORY = Rule("parent-category", "warning", "a part belongs to an object of another category")
OBJECT_IN_OBJECT = Rule(
    "object-with-parent", "warning", "an annotation with a parent is not of a part category"
)
NEGATIVE = Rule("negative-annotated", "warning", "a category checked to be absent is annotated")
REPEATED_FILE = Rule("file-name-repeated", "warning", "two images of a split have the same file")
REPEATED_SOURCE = Rule("source-id-repeated", "warning", "two annotations of an image have the same source id")
EMPTY_SPLIT = Rule("split-empty", "warning", "a split has no images")
ORPHAN_PART = Rule("part-without-object", "note", "a part belongs to no object")
UNSEEN_LABEL = Rule(
    "label-not-annotated", "note", "an annotated image has a label, but no annotation, of a category"
)
UNUSED = Rule("category-unused", "note", "no image and no annotation has this category")
RULES = (
    COUNTS, IMAGE_IDS, ANN_IDS, RANGES, PARENT, CATEGORY_TABLE, CATEGORY, LABEL, SCORE, ORIGIN, RUN,
    PARENT_CATEGORY, OBJECT_IN_OBJECT, NEGATIVE, REPEATED_FILE, REPEATED_SOURCE, EMPTY_SPLIT,
    ORPHAN_PART, UNSEEN_LABEL, UNUSED,
)  # fmt: skip


def check_category_table(dataset: Dataset, found: Found) -> None:
    """Ids and names are unique, and the parent of a part is an object."""
    categories = dataset.categories
    objects = {category.category_id for category in categories if category.kind == "object"}
    for what, used in (
        ("id", Counter(category.category_id for category in categories)),
        ("name", Counter(category.name for category in categories)),
    ):
        found.add(CATEGORY_TABLE, [f"{what} {value} is used {n} times" for value, n in used.items() if n > 1])
    for category in categories:
        if category.category_id < 1:
            found.add(CATEGORY_TABLE, f"{category.name} has id {category.category_id}")
        if category.parent_id is not None and category.parent_id not in objects:
            found.add(CATEGORY_TABLE, f"{category.name} belongs to {category.parent_id}, which is no object")


def check_split(dataset: Dataset, columns: Columns, seen: set[int], found: Found) -> tuple[bool, bool]:
    """Check a split; whether annotations can be joined with their images, and with their parents.

    Args:
        dataset: the whole.
        columns: the split.
        seen: image ids of the other splits; those of this one are added.
        found: where to report.
    """
    joined = _check_ids(columns, seen, found)
    linked = joined and _check_parents(columns, found)
    named = _check_categories(dataset, columns, found)
    _check_counts(dataset, columns, found)
    _check_values(columns, found)
    if linked and named:
        _check_links(dataset, columns, found)
    return joined, linked


def _check_ids(columns: Columns, seen: set[int], found: Found) -> bool:
    """Whether ids and row ranges are sound."""
    name, images, anns = columns.name, columns.image_ids, columns.ann_ids
    again = np.array([image in seen for image in images.tolist()], np.bool_)
    seen.update(images.tolist())
    repeated = images[again]
    found.add(
        IMAGE_IDS,
        [f"image id {i} is used in another split" for i in repeated],
        split=name,
        image_ids=repeated,
    )
    wrong = images[_not_rising(images)]
    found.add(IMAGE_IDS, [f"image ids do not rise from 1 at {i}" for i in wrong], split=name, image_ids=wrong)
    bad = _not_rising(anns)
    texts = [f"annotation ids do not rise from 1 at {i}" for i in anns[bad]]
    found.add(ANN_IDS, texts, split=name, ann_ids=anns[bad], image_ids=columns.ann_images[bad])
    first = np.cumsum(columns.counts) - columns.counts
    if not np.array_equal(columns.offsets, first):
        row = int(np.flatnonzero(columns.offsets != first)[0])
        text = f"the annotations of image {images[row]} begin at row {columns.offsets[row]}, not {first[row]}"
        found.add(RANGES, text, split=name, image_ids=images[row])
        return False
    if not np.array_equal(np.repeat(images, columns.counts), columns.ann_images):
        found.add(RANGES, "the row ranges of the images do not match the annotations", split=name)
        return False
    return not (len(wrong) or len(anns[bad]))


def _check_parents(columns: Columns, found: Found) -> bool:
    """Whether every parent is an object before its part in the same image. Ids must be sound."""
    rows = np.flatnonzero(columns.parent_ids >= 0)
    parents = np.searchsorted(columns.ann_ids, columns.parent_ids[rows])
    earlier = np.minimum(parents, rows)
    sound = (
        (parents < rows)
        & (columns.ann_ids[earlier] == columns.parent_ids[rows])
        & (columns.ann_images[earlier] == columns.ann_images[rows])
        & (columns.parent_ids[earlier] < 0)
    )
    texts = [
        f"its parent {columns.parent_ids[row]} is not an object before it in the same image"
        for row in rows[~sound]
    ]
    _annotations(columns, found, PARENT, rows[~sound], texts)
    return bool(sound.all())


def _check_categories(dataset: Dataset, columns: Columns, found: Found) -> bool:
    """Whether all categories of annotations and labels are in the table."""
    known = np.array([item.category_id for item in dataset.categories if item.category_id > 0], np.int64)
    before = len(found)
    rows = np.flatnonzero(~np.isin(columns.category_ids, known))
    texts = [f"category {columns.category_ids[row]} is not in the table" for row in rows]
    _annotations(columns, found, CATEGORY, rows, texts)
    for which in ("pos", "neg", "not_exhaustive"):
        images, labels = _labels(columns, which)
        odd = ~np.isin(labels, known)
        texts = [f"{which} label {label} is not in the category table" for label in labels[odd]]
        found.add(LABEL, texts, split=columns.name, image_ids=columns.image_ids[images[odd]])
    return len(found) == before


def _check_links(dataset: Dataset, columns: Columns, found: Found) -> None:
    """Parts belong to objects of their category. Ids, parents and categories must be sound."""
    names = {category.category_id: category.name for category in dataset.categories}
    size = max(names, default=0) + 1
    wanted, is_part = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    for category in dataset.categories:
        wanted[category.category_id] = category.parent_id or 0
        is_part[category.category_id] = category.kind == "part"
    mine, parents = columns.category_ids, columns.parent_rows()
    linked, part = parents >= 0, is_part[mine]
    owner = mine[parents]
    rows = np.flatnonzero(linked & part & (wanted[mine] > 0) & (owner != wanted[mine]))
    texts = [f"{names[mine[row]]} belongs to an object of category {names[owner[row]]}" for row in rows]
    _annotations(columns, found, PARENT_CATEGORY, rows, texts)
    rows = np.flatnonzero(linked & ~part)
    texts = [f"{names[mine[row]]} has a parent, but is not a part" for row in rows]
    _annotations(columns, found, OBJECT_IN_OBJECT, rows, texts)
    rows = np.flatnonzero(~linked & part)
    _annotations(columns, found, ORPHAN_PART, rows, [f"{names[mine[row]]} has no object" for row in rows])
    _check_labels(columns, names, found)


def _check_labels(columns: Columns, names: dict[int, str], found: Found) -> None:
    """Image-level labels agree with the annotations."""
    size = max(names, default=0) + 1
    annotated = np.unique(columns.image_rows() * size + columns.category_ids)
    images, labels = _labels(columns, "neg")
    rows = np.flatnonzero(np.isin(images * size + labels, annotated))
    texts = [f"{names[labels[row]]} is annotated, but listed as absent" for row in rows]
    found.add(NEGATIVE, texts, split=columns.name, image_ids=columns.image_ids[images[rows]])
    images, labels = _labels(columns, "pos")
    unseen = ~np.isin(images * size + labels, annotated) & (columns.counts[images] > 0)
    rows = np.flatnonzero(unseen)
    texts = [f"labelled {names[labels[row]]}, but none is annotated" for row in rows]
    found.add(UNSEEN_LABEL, texts, split=columns.name, image_ids=columns.image_ids[images[rows]])


def _check_values(columns: Columns, found: Found) -> None:
    """Names of files, scores, origins and ids of the source. Row ranges must be sound."""
    name, table = columns.name, columns.annotations
    if not len(columns.image_ids):
        found.add(EMPTY_SPLIT, f"split {name} has no images", split=name)
    score = pc.fill_null(table["score"], 0.0).to_numpy()
    rows = np.flatnonzero(~((score >= 0) & (score <= 1)))
    _annotations(columns, found, SCORE, rows, [f"score {score[row]:g}" for row in rows])
    origin = pc.fill_null(table["origin"].cast("string"), "")
    rows = np.flatnonzero(pc.equal(origin, "").to_numpy())
    _annotations(columns, found, ORIGIN, rows, ["it does not say who or what made it"] * len(rows))
    machine = pc.and_(pc.not_equal(origin, "human"), pc.not_equal(origin, ""))
    rows = np.flatnonzero(pc.and_(machine, table["run_id"].is_null()).to_numpy())
    texts = [f"made by {origin[row]}, but not by which run" for row in rows.tolist()]
    _annotations(columns, found, RUN, rows, texts)
    ids = pc.fill_null(table["source_id"], -1).to_numpy()
    rows = _repeated(ids, columns.ann_images, ids >= 0)
    texts = [f"source id {ids[row]} is used before in the same image" for row in rows]
    _annotations(columns, found, REPEATED_SOURCE, rows, texts)
    names = columns.images["file_name"]
    codes = names.combine_chunks().dictionary_encode().indices.to_numpy()
    rows = _repeated(codes, np.zeros_like(codes), codes >= 0)
    texts = [f"{names[row]} is the file of an earlier image, too" for row in rows.tolist()]
    found.add(REPEATED_FILE, texts, split=name, image_ids=columns.image_ids[rows])


def _check_counts(dataset: Dataset, columns: Columns, found: Found) -> None:
    """The manifest's numbers are those of the tables."""
    entry, name = columns.split.entry, columns.name
    kinds = {"object": 0, "part": 0}
    ids, counts = np.unique(columns.category_ids, return_counts=True)
    by_id = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    for category in dataset.categories:
        if category.kind in kinds:
            kinds[category.kind] += by_id.get(category.category_id, 0)
    for kind, stated in (("object", entry.objects), ("part", entry.parts)):
        if kinds[kind] != stated:
            found.add(COUNTS, f"{kinds[kind]} {kind}s, but the manifest says {stated}", split=name)
    dropped = int(pc.sum(columns.split.table("findings")["image_dropped"]).as_py() or 0)
    images = len(columns.image_ids)
    if images + entry.dropped != entry.source_records or dropped < entry.dropped:
        text = f"{images} images and {dropped} dropped do not make {entry.source_records} records"
        found.add(COUNTS, text, split=name)


def used_categories(columns: Columns) -> set[int]:
    """Ids of all categories that an annotation or a label has."""
    labels = [_labels(columns, which)[1] for which in ("pos", "neg", "not_exhaustive")]
    return set(np.unique(np.concatenate([columns.category_ids, *labels])).tolist())


def check_unused(dataset: Dataset, used: set[int], found: Found) -> None:
    """Every category of the table occurs."""
    found.add(UNUSED, [f"{c.name} is never used" for c in dataset.categories if c.category_id not in used])


def _annotations(columns: Columns, found: Found, rule: Rule, rows: Ints, texts: list[str]) -> None:
    ids, images = columns.ann_ids[rows], columns.ann_images[rows]
    found.add(rule, texts, split=columns.name, image_ids=images, ann_ids=ids)


def _labels(columns: Columns, which: str) -> tuple[Ints, Ints]:
    """Image rows and category ids of one list of labels."""
    column = columns.images[f"{which}_category_ids"].combine_chunks()
    images = pc.list_parent_indices(column).to_numpy()
    return images.astype(np.int64), pc.list_flatten(column).to_numpy().astype(np.int64)


def _not_rising(ids: Ints) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.diff(ids, prepend=0) <= 0


def _repeated(values: Ints, groups: Ints, asked: np.ndarray[Any, np.dtype[np.bool_]]) -> Ints:
    """Rows whose value occurs in an earlier row of the same group."""
    rows = np.flatnonzero(asked)
    order = rows[np.lexsort((rows, values[rows], groups[rows]))]
    same = (np.diff(values[order]) == 0) & (np.diff(groups[order]) == 0)
    return np.sort(order[1:][same])
