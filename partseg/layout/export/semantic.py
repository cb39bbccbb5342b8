"""Semantic maps out of the common layout: one PNG per image whose pixels are categories."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from partseg.errors import LayoutError
from partseg.layout.export.panoptic import PANOPTIC_IDS
from partseg.layout.files import new_folder
from partseg.layout.label_images import runs_to_rows, write_png
from partseg.layout.reader import Dataset
from partseg.layout.records import Category
from partseg.layout.runs import Runs, decode_counts
from partseg.layout.split import ImageRecord, Split
from partseg.layout.uids import unpack_uids
from partseg.progress import Progress, Silent

Ids = Literal["category", "train", "source"]
Kind = Literal["object", "part", "both"]
Ints = NDArray[np.int64]


def write_semantic(
    dataset: Dataset,
    split: str,
    out: Path,
    *,
    ids: Ids = "category",
    kind: Kind = "object",
    ignore: int = 255,
    report: Progress | None = None,
) -> dict[str, int]:
    """Write one PNG per image, named as the image, and ``categories.json``, which says what the pixels mean.

    Pixels come from the panoptic maps where there are some. Otherwise masks are painted one over the other:
    stuff, then objects from large to small, then parts from large to small. PNG files have 8 bits, or 16
    where an id needs them.

    Args:
        dataset: one with masks or panoptic maps.
        split: name of the split.
        out: new folder; it appears at the end, or not at all.
        ids: "category" for the layout's ids, "source" for the source's, "train" for 0, 1, 2, ...: the
            published order of the evaluated classes where the source has one (``contiguous_id``), else the
            order of the category table.
        kind: "object" for objects and stuff, "part" for parts alone, "both" for parts over objects.
        ignore: value of the pixels that belong to nothing.
        report: told after every image.

    Returns:
        Counts: categories, images.

    Raises:
        LayoutError: no such split, nothing to paint, ``ignore`` is the id of a category or does not fit into
            16 bits, or ``out`` is taken.
    """
    report = report or Silent()
    source = dataset.split(split)
    values = values_of(dataset, ids, kind)
    if ignore in values.values() or not 0 <= ignore < 2**16 or max(values.values()) >= 2**16:
        raise LayoutError(
            f"{ignore} cannot mark pixels of no category, or an id has more than 16 bits",
            where=dataset.folder,
            fix="choose another value to ignore, or ids 'train'",
        )
    dtype = np.uint8 if max(ignore, *values.values()) < 256 else np.uint16
    painter = Painter(dataset, source, values, kind, ignore)
    with new_folder(out) as folder:
        for index in range(len(source)):
            record = source[index]
            runs = painter.runs(index, record)
            path = folder / PurePosixPath(record.file_name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, runs_to_rows(runs, runs.labels.astype(dtype)))
            report.update(index + 1, len(source), split)
        names = [
            {"id": values[item.category_id], "name": item.name, "category_id": item.category_id}
            for item in dataset.categories
            if item.category_id in values
        ]
        content = {"ignore": ignore, "categories": names}
        (folder / "categories.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return {"categories": len(names), "images": len(source)}


def values_of(dataset: Dataset, ids: Ids, kind: Kind) -> dict[int, int]:
    """The value of each category that is painted.

    Raises:
        LayoutError: there are none.
    """
    painted = [
        item for item in dataset.categories if kind == "both" or (item.kind == "part") == (kind == "part")
    ]
    if not painted:
        raise LayoutError(f"no category of kind {kind}", where=dataset.folder)
    if ids == "category":
        return {item.category_id: item.category_id for item in painted}
    if ids == "source":
        missing = [item.name for item in painted if item.source_id is None]
        if missing:
            raise LayoutError(f"{missing[0]} has no id in the source", where=dataset.folder)
        return {item.category_id: int(item.source_id or 0) for item in painted}
    published = {item.category_id: _published(item) for item in painted}
    if kind == "object" and any(place is not None for place in published.values()):
        return {category: place for category, place in published.items() if place is not None}
    return {item.category_id: place for place, item in enumerate(painted)}


def _published(item: Category) -> int | None:
    place = (item.extra or {}).get("contiguous_id")
    return place if isinstance(place, int) else None


class Painter:
    """Paints a split's images: every pixel gets the value of its category.

    Args:
        dataset: that the split belongs to.
        split: the images.
        values: category_id -> value (:func:`values_of`).
        kind: objects, parts, or parts over their objects.
        ignore: the value of pixels of no category.
    """

    def __init__(
        self, dataset: Dataset, split: Split, values: dict[int, int], kind: Kind, ignore: int
    ) -> None:
        self._split, self._values, self._kind, self._ignore = split, values, kind, ignore
        self._ids = split.entry.details.get(PANOPTIC_IDS) if split.entry.panoptic else None
        self._source_ids = split.batch("annotations")["source_id"].to_numpy()
        self._starts = split.batch("images")["ann_offset"].to_numpy()
        self._stuff = {item.category_id for item in dataset.categories if item.kind == "stuff"}

    def runs(self, index: int, record: ImageRecord) -> Runs:
        """The values of an image's pixels."""
        if self._split.entry.panoptic:
            start = int(self._starts[index])
            rows = self._source_ids[start : start + len(record.ann_ids)]
            return self._from_map(self._split.panoptic(index).runs, record, rows)
        return self._from_masks(record)

    def _from_map(self, runs: Runs, record: ImageRecord, rows: Ints) -> Runs:
        wholes = unpack_uids(runs.labels).sids_iids if self._ids == "panoptic-parts" else runs.labels
        is_part = record.parent_rows >= 0
        painted = self._look_up(wholes, rows, record, ~is_part)
        if self._kind != "object":
            parts = self._look_up(runs.labels, rows, record, is_part)
            painted = parts if self._kind == "part" else np.where(parts == self._ignore, painted, parts)
        return Runs(height=runs.height, width=runs.width, lengths=runs.lengths, labels=painted)

    def _look_up(self, labels: Ints, rows: Ints, record: ImageRecord, chosen: NDArray[np.bool_]) -> Ints:
        """The value of each run's annotation among the ``chosen`` rows."""
        order = np.argsort(rows[chosen], kind="stable")
        known = rows[chosen][order]
        if not len(known):
            return np.full(len(labels), self._ignore, np.int64)
        categories = record.category_ids[chosen][order].tolist()
        values = np.array([self._values.get(category, self._ignore) for category in categories], np.int64)
        place = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        return np.where(known[place] == labels, values[place], self._ignore)

    def _from_masks(self, record: ImageRecord) -> Runs:
        flat = np.full(record.height * record.width, self._ignore, np.int64)
        for row in self._order(record):
            rle = record.rles[row]
            if rle is None:
                continue
            ends = np.cumsum(decode_counts(rle))
            value = self._values[int(record.category_ids[row])]
            for begin, end in zip(ends[0::2].tolist(), ends[1::2].tolist(), strict=False):
                flat[begin:end] = value
        first = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        lengths = np.diff(first, append=len(flat))
        return Runs(height=record.height, width=record.width, lengths=lengths, labels=flat[first])

    def _order(self, record: ImageRecord) -> list[int]:
        """Rows to paint, the lowest first."""
        rows = [row for row in range(len(record.rles)) if int(record.category_ids[row]) in self._values]

        def height(row: int) -> tuple[Any, ...]:
            is_stuff = int(record.category_ids[row]) in self._stuff
            return record.parent_rows[row] >= 0, not is_stuff, -record.areas[row]

        return sorted(rows, key=height)
