"""Numbers of a dataset: how many of what, how large, and where nothing is annotated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from partseg.layout.reader import Dataset
from partseg.layout.split import Split

_KINDS = ("object", "part", "stuff")
# COCO's bounds of small and medium areas.
_SMALL, _MEDIUM = 32**2, 96**2


def statistics(dataset: Dataset) -> dict[str, Any]:
    """Counts and sizes, ready for JSON.

    Returns:
        "splits": by name: files, images, annotations by kind, sizes in pixels (minimum, median, maximum),
        areas, parts per object, images without annotations and image-level labels. "categories": annotations
        by split and name; image-level labels where a split has nothing else. "category_sizes": median area
        in pixels and number of images by split and name. "findings": what the converter reported.
    """
    manifest = dataset.manifest
    splits = {name: dataset.split(name) for name in manifest.splits}
    return {
        "name": manifest.name,
        "format_version": manifest.format_version,
        "splits": {name: _split(dataset, split) for name, split in splits.items()},
        "findings": manifest.findings,
        "categories": {name: _categories(dataset, split) for name, split in splits.items()},
        "category_sizes": {name: _category_sizes(dataset, split) for name, split in splits.items()},
    }


def _split(dataset: Dataset, split: Split) -> dict[str, Any]:
    entry, images, annotations = split.entry, split.batch("images"), split.batch("annotations")
    kind_of = {category.category_id: _KINDS.index(category.kind) for category in dataset.categories}
    kinds = _looked_up(annotations["category_id"].to_numpy(), kind_of)
    areas, parent_rows = annotations["area"].to_numpy(), annotations["parent_row"].to_numpy()
    counts = images["ann_count"].to_numpy()
    owners = (np.repeat(images["ann_offset"].to_numpy(), counts) + parent_rows)[parent_rows >= 0]
    parts = np.bincount(owners, minlength=len(kinds))[kinds == _KINDS.index("object")]
    files = [entry.images, entry.annotations, entry.findings, entry.polygons, entry.panoptic]
    return {
        "source_records": entry.source_records,
        "images": images.num_rows,
        "dropped": entry.dropped,
        "objects": entry.objects,
        "parts": entry.parts,
        "stuff": int((kinds == _KINDS.index("stuff")).sum()),
        "crowds": int(annotations["is_crowd"].to_numpy().sum()),
        "masks": int(pc.sum(pc.greater(pc.binary_length(annotations["rle"]), 0)).as_py() or 0),
        "bytes": sum(file.bytes for file in files if file is not None),
        "height": _spread(images["height"].to_numpy()),
        "width": _spread(images["width"].to_numpy()),
        "annotations_per_image": _spread(counts),
        "parts_per_object": _spread(parts),
        "objects_without_parts": int((parts == 0).sum()),
        "areas": {kind: _areas(areas[kinds == place]) for place, kind in enumerate(_KINDS)},
        "images_without_annotations": int((counts == 0).sum()),
        "labels": {which: _labels(images, which) for which in ("pos", "neg", "not_exhaustive")},
    }


def _labels(images: Any, which: str) -> dict[str, int]:
    """How many images have such a list, and how long all of them are together."""
    lengths = pc.list_value_length(images[f"{which}_category_ids"]).to_numpy()
    return {"images": int((lengths > 0).sum()), "labels": int(lengths.sum())}


def _categories(dataset: Dataset, split: Split) -> dict[str, int]:
    ids = split.batch("annotations")["category_id"].to_numpy()
    if not len(ids):
        ids = split.batch("images")["pos_category_ids"].flatten().to_numpy()
    used, counts = np.unique(ids, return_counts=True)
    by_id = dict(zip(used.tolist(), counts.tolist(), strict=True))
    return {item.name: by_id[item.category_id] for item in dataset.categories if item.category_id in by_id}


def _category_sizes(dataset: Dataset, split: Split) -> dict[str, dict[str, float]]:
    annotations = split.batch("annotations")
    ids, areas = annotations["category_id"].to_numpy(), annotations["area"].to_numpy()
    counts = split.batch("images")["ann_count"].to_numpy()
    images = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((areas, ids))
    used, first = np.unique(ids[order], return_index=True)
    found = {}
    names = {category.category_id: category.name for category in dataset.categories}
    for category, rows in zip(used.tolist(), np.split(order, first[1:]), strict=False):  # one piece of none
        found[names[category]] = {
            "images": len(np.unique(images[rows])),
            "median_area": float(np.median(areas[rows])),
        }
    return found


def _areas(areas: NDArray[np.float64]) -> dict[str, Any]:
    """Areas in pixels and how many are small, medium and large as COCO means it."""
    small, medium = int((areas < _SMALL).sum()), int((areas < _MEDIUM).sum())
    return {"small": small, "medium": medium - small, "large": len(areas) - medium, **_spread(areas)}


def _spread(values: NDArray[Any]) -> dict[str, float]:
    """Minimum, median, mean and maximum; nothing of no values."""
    if not len(values):
        return {}
    numbers = {"min": values.min(), "median": np.median(values), "mean": values.mean(), "max": values.max()}
    return {name: round(float(number), 2) for name, number in numbers.items()}


def _looked_up(ids: NDArray[Any], table: dict[int, int]) -> NDArray[np.int64]:
    lookup = np.zeros(max(table, default=0) + 1, np.int64)
    lookup[list(table)] = list(table.values())
    return np.asarray(lookup[ids])
