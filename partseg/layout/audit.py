"""Checks a dataset against every rule of the layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from partseg.files import sha256_file
from partseg.layout.manifest import FileEntry
from partseg.layout.reader import Dataset, Split
from partseg.layout.runs import decode_counts
from partseg.layout.schema import ANNOTATIONS, FINDINGS, IMAGES

# Boxes of other tools may reach past the edge by rounding.
_EDGE = 1.0


def audit(dataset: Dataset, *, masks: bool = True) -> list[str]:
    """Every broken rule as one sentence; empty for a sound dataset.

    Args:
        dataset: any dataset.
        masks: also decode every run-length (slower): it must cover its image and not be empty.
    """
    problems = list(_file(dataset, dataset.manifest.categories))
    if problems:
        return problems
    seen: set[int] = set()
    for name in dataset.splits:
        split = dataset.split(name)
        entry = split.entry
        broken = [
            problem
            for item in (entry.images, entry.annotations, entry.findings)
            for problem in _file(dataset, item)
        ]
        problems += broken or [f"split {name}: {problem}" for problem in _split(dataset, split, seen, masks)]
    return problems


def _file(dataset: Dataset, entry: FileEntry) -> Iterator[str]:
    path = dataset.folder / entry.path
    if not path.is_file():
        yield f"{entry.path} is missing"
    elif path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
        yield f"{entry.path} is not the file the manifest describes (size or sha256 differs)"


def _split(dataset: Dataset, split: Split, seen: set[int], masks: bool) -> Iterator[str]:
    images, annotations, findings = (split.table(kind) for kind in ("images", "annotations", "findings"))
    tables = (
        (images, IMAGES, "images"),
        (annotations, ANNOTATIONS, "annotations"),
        (findings, FINDINGS, "findings"),
    )
    for table, schema, kind in tables:
        if not table.schema.equals(schema):
            yield f"the {kind} table has other columns than layout {dataset.manifest.format_version}"
            return
    entry = split.entry
    dropped = int(pc.sum(findings["image_dropped"]).as_py() or 0)
    if images.num_rows + entry.dropped != entry.source_records or dropped < entry.dropped:
        yield f"{images.num_rows} images and {dropped} dropped do not make {entry.source_records} records"
    yield from _ids(images, annotations, seen)
    yield from _categories(dataset, images, annotations)
    yield from _boxes(images, annotations)
    if masks:
        yield from _masks(images, annotations)


def _ids(images: Any, annotations: Any, seen: set[int]) -> Iterator[str]:
    image_ids, ann_ids = images["image_id"].to_numpy(), annotations["ann_id"].to_numpy()
    for what, ids in (("image", image_ids), ("annotation", ann_ids)):
        if len(ids) and (ids.min() < 1 or (np.diff(ids) <= 0).any()):
            yield f"{what} ids do not rise from 1"
    if not seen.isdisjoint(image_ids.tolist()):
        yield "an image id is used in another split"
    seen.update(image_ids.tolist())
    counts = images["ann_count"].to_numpy()
    if not np.array_equal(images["ann_offset"].to_numpy(), np.cumsum(counts) - counts):
        yield "row ranges of the images do not follow one another"
    elif not np.array_equal(np.repeat(image_ids, counts), annotations["image_id"].to_numpy()):
        yield "row ranges of the images do not match the annotations"
    has_parent = annotations["parent_id"].is_valid().to_numpy()
    rows = np.flatnonzero(has_parent)
    parents = np.searchsorted(ann_ids, annotations["parent_id"].drop_null().to_numpy())
    inside = parents < rows
    same = inside & (
        annotations["image_id"].to_numpy()[np.minimum(parents, rows)]
        == annotations["image_id"].to_numpy()[rows]
    )
    if not same.all() or has_parent[parents[inside]].any():
        first = ann_ids[rows[~same][0]] if not same.all() else ann_ids[rows[0]]
        yield f"annotation {first}: its parent is not an object before it in the same image"


def _categories(dataset: Dataset, images: Any, annotations: Any) -> Iterator[str]:
    known = [category.category_id for category in dataset.categories]
    if not np.isin(annotations["category_id"].to_numpy(), known).all():
        yield "an annotation has a category that is not in the table"
    for which in ("pos", "neg", "not_exhaustive"):
        if not np.isin(pc.list_flatten(images[f"{which}_category_ids"]).to_numpy(), known).all():
            yield f"an image has a {which} label that is not in the category table"


def _boxes(images: Any, annotations: Any) -> Iterator[str]:
    boxes: NDArray[np.float64] = (
        annotations["bbox"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    )
    counts = images["ann_count"].to_numpy()
    sizes = np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1).repeat(counts, axis=0)
    if len(sizes) != len(boxes):
        return  # reported as row ranges
    fits = (boxes[:, :2] >= -_EDGE).all(axis=1) & (boxes[:, :2] + boxes[:, 2:] <= sizes + _EDGE).all(axis=1)
    sound = fits & np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
    if not sound.all():
        row = int(np.flatnonzero(~sound)[0])
        yield f"annotation {annotations['ann_id'][row]}: box {boxes[row].tolist()} is not inside its image"


def _masks(images: Any, annotations: Any) -> Iterator[str]:
    counts = images["ann_count"].to_numpy()
    pixels = (images["height"].to_numpy().astype(np.int64) * images["width"].to_numpy()).repeat(counts)
    for row, (rle, size) in enumerate(zip(annotations["rle"], pixels, strict=False)):
        if not rle.is_valid:
            continue
        where = f"annotation {annotations['ann_id'][row]}"
        try:
            runs = decode_counts(rle.as_py())
        except ValueError:
            yield f"{where}: its mask is not a run-length"
            continue
        if runs.sum() != size or (runs < 0).any():
            yield f"{where}: its mask covers {runs.sum()} pixels, its image has {size}"
        elif runs[1::2].sum() == 0:
            yield f"{where}: its mask is empty"
