"""Rows of the layout as the dictionaries of a COCO-like file, a few thousand at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from partseg.errors import LayoutError
from partseg.layout.cache import open_polygons
from partseg.layout.columns import Bytes, Polygons
from partseg.layout.records import Category
from partseg.layout.runs import decode_counts
from partseg.layout.split import Split
from partseg.progress import Progress

Ids = Literal["source", "layout"]
Ints = NDArray[np.int64]
Row = dict[str, Any]
Finish = Callable[[Row, Mapping[str, Any]], None]

_ROWS = 4096  # at a time; a few megabytes with LVIS's outlines
_LABELS = ("pos_category_ids", "neg_category_ids", "not_exhaustive_category_ids")
_IMAGE = ("id", "file_name", "height", "width")
_ANNOTATION = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
_EXTENSIONS = ("parent_id", "ignore", "score", "attribute_ids")
_OURS = ("absent", "segmentation_form")  # keys of `extra` that say how the source wrote a row


class CocoRows:
    """What a COCO-like file of one split lists.

    Args:
        split: any split.
        categories: those to keep; annotations and labels of others are left out.
        ids: "source" takes ids, fields and order from the source and leaves out what was derived. "layout"
            takes the layout's ids and adds what COCO has no key for: links, scores, image-level labels.
        single: only images with exactly one annotation of these categories.
        always: fields that every image or annotation gets, even where they are empty.
    """

    def __init__(
        self,
        split: Split,
        categories: Sequence[Category],
        *,
        ids: Ids,
        single: Sequence[int] | None = None,
        always: tuple[str, ...] = (),
    ) -> None:
        self._split, self._source, self._always = split, ids == "source", always
        self._images, self._annotations = split.batch("images"), split.batch("annotations")
        self.details = split.entry.details
        self.numbers = {
            item.category_id: number for item in categories if (number := self._number(item)) is not None
        }
        counts = self._images["ann_count"].to_numpy()
        self._image_of = np.repeat(np.arange(len(counts)), counts)
        self.images = self._kept_images(single)
        self.annotations = self._kept_annotations()
        self._exact = self._source and "annotation_fields" in self.details
        if self._source and not self._exact:
            self._check_source_ids()

    def image_rows(self, finish: Finish) -> Iterator[list[Row]]:
        """The images; ``finish`` may change each, given its ``extra``."""
        fields = self.details.get("image_fields", _IMAGE) if self._source else (*_IMAGE, *_LABELS)
        fields = [*fields, *(name for name in _LABELS if name in self._always and name not in fields)]
        for rows in _pieces(self.images):
            batch = self._images.take(pa.array(rows))
            columns = [self._image_column(name, batch, rows) for name in fields]
            made = [self._row(fields, values) for values in zip(*columns, strict=True)]
            extras = [orjson.loads(text) if text else {} for text in batch["extra"].to_pylist()]
            yield self._finished(made, extras, finish)

    def annotation_rows(self, finish: Finish, report: Progress) -> Iterator[list[Row]]:
        """The annotations; ``finish`` may change each, given its ``extra``."""
        default = _ANNOTATION if self._source else (*_ANNOTATION, *_EXTENSIONS)
        fields = list(self.details.get("annotation_fields", default) if self._source else default)
        fields += [name for name in ("attribute_ids", "obj_ann_id") if name in self._always]
        fields = list(dict.fromkeys(fields))
        done = 0
        for rows in _pieces(self.annotations):
            extras: list[Mapping[str, Any]] = [{}] * len(rows)
            for position in self._extras.filled(rows):
                extras[position] = orjson.loads(self._extras[int(rows[position])])
            columns = [self._annotation_column(name, rows, extras) for name in fields]
            made = [self._row(fields, values) for values in zip(*columns, strict=True)]
            yield self._finished(made, extras, finish)
            done += len(rows)
            report.update(done, len(self.annotations), self._split.name)

    def counts(self) -> dict[int, tuple[int, int]]:
        """For each category number of the file: in how many images it occurs, and how often."""
        categories = self._category_ids[self.annotations]
        pairs = np.unique(categories * np.int64(len(self._images)) + self._image_of[self.annotations])
        size = max(self.numbers, default=0) + 1
        images = np.bincount(pairs // max(len(self._images), 1), minlength=size)
        instances = np.bincount(categories, minlength=size)
        return {number: (int(images[key]), int(instances[key])) for key, number in self.numbers.items()}

    def _number(self, category: Category) -> int | None:
        return category.source_id if self._source else category.category_id

    def _kept_images(self, single: Sequence[int] | None) -> Ints:
        if single is None:
            return np.arange(len(self._images))
        images = self._image_of[np.isin(self._category_ids, single)]
        return np.flatnonzero(np.bincount(images, minlength=len(self._images)) == 1)

    def _kept_annotations(self) -> Ints:
        kept = np.isin(self._category_ids, list(self.numbers)) & np.isin(self._image_of, self.images)
        if not self._source:
            return np.flatnonzero(kept)
        places = self._annotations["source_row"].to_numpy()
        rows = np.flatnonzero(kept & (places >= 0))
        return np.asarray(rows[np.argsort(places[rows], kind="stable")])

    def _check_source_ids(self) -> None:
        """Ids of sources that are not COCO-like may be missing or repeat."""
        for what, numbers in (
            ("image", self._image_numbers[self.images]),
            ("annotation", self._numbers[self.annotations]),
        ):
            if len(np.unique(numbers)) != len(numbers) or (numbers < 0).any():
                raise LayoutError(
                    f"the source has no unique {what} ids",
                    where=f"{self._split.folder}, split {self._split.name}",
                    fix="export with the layout's ids: --ids layout",
                )

    @cached_property
    def _category_ids(self) -> Ints:
        return np.asarray(self._annotations["category_id"].to_numpy())

    @cached_property
    def _image_numbers(self) -> Ints:
        return np.asarray(self._images["source_id" if self._source else "image_id"].to_numpy())

    @cached_property
    def _numbers(self) -> Ints:
        return np.asarray(self._annotations["source_id" if self._source else "ann_id"].to_numpy())

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        return np.asarray(self._annotations["bbox"].flatten().to_numpy()).reshape(-1, 4)

    @cached_property
    def _extras(self) -> Bytes:
        return Bytes(self._annotations["extra"])

    @cached_property
    def _rles(self) -> Bytes:
        return Bytes(self._annotations["rle"])

    @cached_property
    def _polygons(self) -> Polygons | None:
        entry = self._split.entry.polygons
        return (
            None if entry is None else Polygons(open_polygons(self._split.folder, entry, self._split.cache))
        )

    def _image_column(self, name: str, batch: pa.RecordBatch, rows: Ints) -> list[Any]:
        if name == "id":
            return list(self._image_numbers[rows].tolist())
        values: list[Any] = batch[name].to_pylist()
        if name not in _LABELS:
            return values
        labels = [[self.numbers[label] for label in found if label in self.numbers] for found in values]
        return labels if self._source or name in self._always else [found or None for found in labels]

    def _annotation_column(self, name: str, rows: Ints, extras: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Values of one field; None where the annotation does not get it."""
        match name:
            case "id":
                return list(self._numbers[rows].tolist())
            case "image_id":
                return list(self._image_numbers[self._image_of[rows]].tolist())
            case "category_id":
                return [self.numbers[key] for key in self._category_ids[rows].tolist()]
            case "bbox":
                return list(self._boxes[rows].tolist())
            case "area":
                return list(self._annotations["area"].to_numpy()[rows].tolist())
            case "iscrowd":
                return list(self._annotations["is_crowd"].to_numpy()[rows].tolist())
            case "ignore":
                flags = self._annotations["is_ignore"].to_numpy()[rows].tolist()
                return list(flags) if self._source else [flag or None for flag in flags]
            case "score":
                scores = self._annotations["score"].to_numpy()[rows].tolist()
                return [score if score == score else None for score in scores]  # nan: a person's
            case "attribute_ids":
                found = self._annotations["attributes"].take(pa.array(rows)).to_pylist()
                return found if self._source or name in self._always else [ids or None for ids in found]
            case "parent_id":
                parents = self._parents(rows)
                return [None if own else number for own, number in zip(*parents, strict=True)]
            case "obj_ann_id":
                return self._parents(rows)[1]
            case "segmentation":
                return self._segmentations(rows, extras)
        raise LayoutError(f"the manifest names an annotation field {name!r} that has no column")

    def _parents(self, rows: Ints) -> tuple[list[bool], list[int]]:
        """Whether each is its own object, and the number of its object."""
        within = self._annotations["parent_row"].to_numpy()[rows]
        first = self._images["ann_offset"].to_numpy()[self._image_of[rows]]
        own = within < 0
        return list(own.tolist()), list(self._numbers[np.where(own, rows, first + within)].tolist())

    def _segmentations(self, rows: Ints, extras: Sequence[Mapping[str, Any]]) -> list[Any]:
        ann_ids = self._annotations["ann_id"].to_numpy()[rows]
        outlines: Sequence[Any] = self._polygons.of(ann_ids) if self._polygons else [None] * len(rows)
        crowd = self._annotations["is_crowd"].to_numpy()[rows].tolist()
        images = self._image_of[rows]
        heights = self._images["height"].to_numpy()[images].tolist()
        widths = self._images["width"].to_numpy()[images].tolist()
        made: list[Any] = []
        for position, row in enumerate(rows.tolist()):
            rings = outlines[position]
            form = extras[position].get("segmentation_form") or ("polygons" if rings is not None else None)
            if form == "polygons":
                made.append(rings or [])
            elif form == "empty":
                made.append([])
            else:
                rle = self._rles[row]
                plain = form == "uncompressed" or (form is None and crowd[position])
                counts: Any = decode_counts(rle) if plain else rle.decode("ascii")
                size = [heights[position], widths[position]]
                made.append({"size": size, "counts": counts} if rle else None)
        return made

    def _row(self, fields: Sequence[str], values: Sequence[Any]) -> Row:
        """Where the source's fields are known, ``extra`` says which of them are absent."""
        pairs = zip(fields, values, strict=True)
        return dict(pairs) if self._exact else {name: value for name, value in pairs if value is not None}

    def _finished(self, rows: list[Row], extras: Sequence[Mapping[str, Any]], finish: Finish) -> list[Row]:
        for row, extra in zip(rows, extras, strict=True):
            if extra and self._source:
                for name in extra.get("absent", ()):
                    row.pop(name, None)
                row.update((name, value) for name, value in extra.items() if name not in _OURS)
            finish(row, extra)
        return rows


def _pieces(rows: Ints) -> Iterator[Ints]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
