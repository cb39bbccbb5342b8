"""One COCO-like JSON file as source records: images, their annotations, the category table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from partseg.datasets.formats.coco_categories import coco_categories
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_rows import MODELLED, Annotations, annotation_rows
from partseg.datasets.formats.json_index import MISSING, JsonIndex, index_json
from partseg.datasets.formats.photos import photo_digest, photo_missing
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category, Finding, ImageRow, Record

IMAGE_FIELDS = ("id", "file_name", "height", "width")
LABELS = ("pos_category_ids", "neg_category_ids", "not_exhaustive_category_ids")
_EXTRA_FIELDS = ("ignore", "score", "attribute_ids")

_HEADER_RECORDS = 64  # the first so many say which keys the records of a file have
_MAX_PIXELS = 2**31 - 1  # run-lengths are counted in 32 bits
_IN_ARRAYS = {"images": ("id",), "annotations": ("id", "image_id")}
_TOGETHER = 64  # images read at a time
_NO_ID = "row "  # begins the key of an image that cannot be named by its id

Complete = Callable[[list[AnnotationRow], tuple[int, int], Annotations], list[AnnotationRow]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What differs between COCO-like formats.

    Attributes:
        fix: how to get the files.
        photo: path of an image's file relative to the raw root, given the split, the image's record and the
            options; may raise LookupError, TypeError, ValueError or AttributeError where it does not say.
        categories: the category table, given that of the file.
        parent_key: see :class:`~partseg.datasets.formats.coco_rows.Annotations`.
        complete: adds derived annotations to those of an image.
    """

    fix: str
    photo: Callable[[str, Mapping[str, Any], Any], str]
    categories: Callable[[Sequence[Mapping[str, Any]], object], tuple[Category, ...]] = coco_categories
    parent_key: str = "parent_id"
    complete: Complete | None = None


@dataclass
class CocoFile:
    """One split's file.

    Args:
        raw: where the files are.
        name: the JSON file, relative to the root.
        split: name of the split.
        format: how to understand it.
        options: of the source.
    """

    raw: Raw
    name: str
    split: str
    format: Format
    options: CocoOptions

    @cached_property
    def index(self) -> JsonIndex:
        """The file's index."""
        return index_json(self.raw.root / self.name, self.raw.scratch, _IN_ARRAYS)

    def keys(self) -> list[str]:
        """The key of every image: its id, or its row where that is no integer or not the first of its kind.

        Raises:
            SourceError: the file is missing or damaged, or has no images.
        """
        ids = self.index.integers("images", "id")
        if not len(ids):
            raise SourceError("has no images", where=self.index.path, fix=self.format.fix)
        self.index.count("annotations")  # that there are some at all
        keys = [str(number) for number in ids.tolist()]
        for row in [*np.flatnonzero(ids == MISSING).tolist(), *self.index.repeated("images", "id").tolist()]:
            keys[row] = f"{_NO_ID}{row}"
        return keys

    def photos(self) -> Iterator[str]:
        """Paths of all photos, relative to the raw root, as far as their records name one.

        Raises:
            SourceError: a record is damaged.
        """
        for start in range(0, self.index.count("images"), 4096):
            stop = min(start + 4096, self.index.count("images"))
            for image in self.index.parsed("images", range(start, stop)):
                if (name := self._photo(image)) is not None:
                    yield name

    def _photo(self, image: Mapping[str, Any]) -> str | None:
        if type(image.get("file_name", "")) is not str:
            return None
        try:
            name = self.format.photo(self.split, image, self.options)
            steps = name.split("/")
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        fine = steps[0] and steps[-1] and "\0" not in name and ".." not in steps
        fine = fine and all(len(step.encode()) < 256 for step in steps)
        return PurePosixPath(name).as_posix() if fine else None

    def category_records(self) -> list[Mapping[str, Any]]:
        """The file's list of categories.

        Raises:
            SourceError: it has none, or they are not a list.
        """
        records = self.index.value("categories")
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise SourceError(
                "'categories' is not a list of objects", where=self.index.path, fix=self.format.fix
            )
        return records

    def details(self) -> dict[str, Any]:
        """What the file says besides images and annotations, and which keys those have.

        A row's ``extra`` lists the keys it lacks under "absent".
        """
        others = [key for key in self.index.keys if key not in ("images", "annotations", "categories")]
        return {
            "image_fields": sorted(self.image_header),
            "annotation_fields": sorted(self.annotation_header),
            "top_level": {key: self.index.value(key) for key in others},
        }

    @cached_property
    def image_header(self) -> frozenset[str]:
        """Modelled keys of its images."""
        return self._header("images", (*IMAGE_FIELDS, *LABELS))

    @cached_property
    def annotation_header(self) -> frozenset[str]:
        """Modelled keys of its annotations."""
        return self._header("annotations", (*MODELLED, *_EXTRA_FIELDS, self.format.parent_key))

    def _header(self, key: str, modelled: Sequence[str]) -> frozenset[str]:
        first = self.index.parsed(key, range(min(self.index.count(key), _HEADER_RECORDS)))
        return frozenset(name for record in first for name in record if name in modelled)

    def read(
        self, keys: Sequence[str], categories: Sequence[Category], *, annotated: bool = True
    ) -> Iterator[Record]:
        """The images ``keys`` with their annotations.

        Annotations of images that are not in the file are findings of the first image.

        Args:
            keys: some of :meth:`keys`.
            categories: of the layout.
            annotated: leave the annotations out if false.

        Raises:
            SourceError: a record or a photo is damaged, or a photo is missing.
        """
        context = Annotations(
            known={row.source_id: row.category_id for row in categories if row.source_id is not None},
            parents={row.category_id: row.parent_id for row in categories if row.parent_id is not None},
            header=self.annotation_header,
            parent_key=self.format.parent_key,
            repeated=self._repeated,
        )
        for start in range(0, len(keys), _TOGETHER):
            yield from self._read(keys[start : start + _TOGETHER], context, annotated)

    def _read(self, keys: Sequence[str], context: Annotations, annotated: bool) -> Iterator[Record]:
        index, rows = self.index, self.rows(keys)
        order, starts = index.groups("annotations", "image_id", "images", "id")
        images = index.parsed("images", rows)
        members = [
            order[starts[row] : starts[row + 1] if annotated else starts[row]] for row in rows.tolist()
        ]
        stops = np.cumsum([len(positions) for positions in members]).tolist()
        texts = index.records("annotations", np.concatenate(members))
        for row, key, image, positions, stop in zip(rows.tolist(), keys, images, members, stops, strict=True):
            # One image at a time: its numbers find room where those of the last one were.
            found = index.parse("annotations", positions, texts[stop - len(positions) : stop])
            strays = self._strays() if row == 0 else []
            if key.startswith(_NO_ID):
                what = "has an id that is not an integer, or that another image has as well"
                yield Record.dropped(key, "bad-image", f"image {image.get('id')!r:.40} {what}", strays)
            else:
                yield self._record(key, image, found, positions.tolist(), context, strays)

    def rows(self, keys: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where in the list of images each of some :meth:`keys` is, int64 [N]."""
        named = np.array([not key.startswith(_NO_ID) for key in keys])
        numbers = np.array([int(key.removeprefix(_NO_ID)) for key in keys], np.int64)
        found = self.index.find("images", "id", numbers)
        return np.where(named, found, numbers)

    @cached_property
    def _repeated(self) -> frozenset[int]:
        """Annotation ids that are used more than once."""
        again = self.index.repeated("annotations", "id")
        return frozenset(self.index.integers("annotations", "id")[again].tolist())

    def _strays(self) -> list[Finding]:
        """Annotations that belong to no image."""
        order, starts = self.index.groups("annotations", "image_id", "images", "id")
        strays = order[starts[-2] : starts[-1]]
        ids = self.index.integers("annotations", "id")[strays].tolist()
        images = self.index.integers("annotations", "image_id")[strays].tolist()
        return [
            Finding(
                source_key="none" if image == MISSING else str(image),
                reason="unknown-image",
                message=f"annotation {'without an id' if number == MISSING else number} "
                f"({position} in the file) "
                + ("names no image" if image == MISSING else f"belongs to image {image}, which is not there"),
            )
            for position, number, image in zip(strays.tolist(), ids, images, strict=True)
        ]

    def _record(
        self,
        key: str,
        image: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        positions: Sequence[int],
        context: Annotations,
        findings: list[Finding],
    ) -> Record:
        size, name = _size(image), self._photo(image)
        if size is None:
            message = "has height {!r:.40} and width {!r:.40}".format(image.get("height"), image.get("width"))
            return Record.dropped(key, "bad-image", f"image {key} {message}", findings)
        if name is None:
            return Record.dropped(key, "bad-image", f"image {key} does not name its file", findings)
        try:
            digest = photo_digest(self.raw.root, name, size, self.options.images)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            allowed = self.options.allow_missing
            return photo_missing(self.raw.root, name, key, allowed, self.format.fix, findings)
        rows, odd = annotation_rows(records, positions, key, size, context)
        if self.format.complete is not None:
            rows = self.format.complete(rows, size, context)
        labels, extra = self._labels(key, image, context.known, findings)
        extra |= {item: value for item, value in image.items() if item not in self.image_header}
        if absent := self.image_header - image.keys():
            extra["absent"] = sorted(absent)
        if "file_name" in image and image["file_name"] != name:
            extra["file_name"] = image["file_name"]
        row = ImageRow(
            file_name=name,
            height=size[0],
            width=size[1],
            source_key=key,
            source_id=int(key),
            sha256=digest,
            pos_category_ids=labels["pos_category_ids"],
            neg_category_ids=labels["neg_category_ids"],
            not_exhaustive_category_ids=labels["not_exhaustive_category_ids"],
            extra=extra or None,
        )
        return Record(image=row, annotations=rows, findings=[*findings, *odd])

    def _labels(
        self, key: str, image: Mapping[str, Any], known: Mapping[int, int], findings: list[Finding]
    ) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
        """Image-level labels as columns, and verbatim those that are not ids of categories."""
        columns: dict[str, tuple[int, ...]] = dict.fromkeys(LABELS, ())
        verbatim = {}
        for name in LABELS:
            values = image.get(name, [])
            if type(values) is not list or not all(type(item) is int and item in known for item in values):
                verbatim[name] = values
                message = f"image {key} has {name} that the file does not define"
                findings.append(Finding(source_key=key, reason="bad-labels", message=message))
            else:
                columns[name] = tuple(known[item] for item in values)
        return columns, verbatim


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or not 0 < height * width <= _MAX_PIXELS:
        return None
    return (height, width) if height > 0 else None
