"""Sources that consist of one COCO-like JSON file per split, and photos."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from partseg.datasets.formats.coco_file import CocoFile, Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.photos import check_photos
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Category, Record

# Keys of partseg's own export. Columns hold them for every source, so they do not say that a file had them.
_LINKS = frozenset(("kind", "parent_id", "group"))


class CocoSource:
    """The functions of a source module.

    Args:
        format: how to understand its files.
    """

    def __init__(self, format: Format) -> None:
        self._format = format
        self._cache: tuple[Any, _Tables] | None = None

    def format(self, options: CocoOptions) -> Format:
        """How to understand the files."""
        return self._format

    def files(self, root: Path, options: CocoOptions) -> list[str]:
        """Relative paths of the raw files that a conversion depends on, sorted.

        Photos are among them where they are read, or where those that are missing become findings.

        Raises:
            SourceError: an annotation file is missing.
        """
        names = options.names()
        missing = [name for name in names.values() if not (root / name).is_file()]
        if missing:
            raise SourceError(f"missing: {', '.join(missing)}", where=root, fix=self._format.fix)
        found = set(names.values())
        if options.images == "hash" or (options.images == "list" and options.allow_missing):
            with tempfile.TemporaryDirectory() as scratch:
                for file in self._files(Raw(root, Path(scratch)), options).values():
                    found |= {photo for photo in file.photos() if (root / photo).is_file()}
        return sorted(found)

    def categories(self, raw: Raw, options: CocoOptions) -> tuple[Category, ...]:
        """The categories of all files.

        Raises:
            SourceError: a file is damaged, or two use an id for different categories.
        """
        return self._tables(raw, options).categories

    def splits(self, raw: Raw, options: CocoOptions) -> Mapping[str, Sequence[str]]:
        """The image ids of each split, in the order of its file.

        Raises:
            SourceError: a file is damaged or (unless ``allow_missing``) a photo is missing.
        """
        found = {}
        for split, file in self._files(raw, options).items():
            found[split] = file.keys()
            if options.images != "none" and not options.allow_missing:
                check_photos(raw.root, file.photos(), options.images, self._format.fix)
        return found

    def details(self, raw: Raw, options: CocoOptions) -> Mapping[str, Mapping[str, Any]]:
        """Everything at the top of the files except images and annotations.

        ``categories`` is there only where a file states them differently from the category table.
        """
        tables = self._tables(raw, options)
        return {
            split: file.details() | ({"categories": other} if (other := tables.other.get(split)) else {})
            for split, file in self._files(raw, options).items()
        }

    def read(self, raw: Raw, split: str, keys: Sequence[str], options: CocoOptions) -> Iterator[Record]:
        """The images ``keys`` with their annotations in the order of the file, objects before parts.

        Raises:
            SourceError: a file is missing or damaged.
        """
        return self._files(raw, options)[split].read(keys, self._tables(raw, options).categories)

    def _files(self, raw: Raw, options: CocoOptions) -> dict[str, CocoFile]:
        return {
            split: CocoFile(raw, name, split, self.format(options), options)
            for split, name in options.names().items()
        }

    def _tables(self, raw: Raw, options: CocoOptions) -> _Tables:
        files = self._files(raw, options)
        key = [(split, file.index) for split, file in files.items()]  # an index is new when its file is
        if self._cache is None or self._cache[0] != key:
            self._cache = key, _Tables(files, self._format)
        return self._cache[1]


class _Tables:
    """The category tables of several files, joined.

    Attributes:
        categories: rows of the first file, then what others have besides.
        other: verbatim categories of the splits whose file does not state exactly ``categories``.
    """

    def __init__(self, files: Mapping[str, CocoFile], format: Format) -> None:
        rows: dict[int, Category] = {}
        stated: dict[str, list[Mapping[str, Any]]] = {}
        for split, file in files.items():
            stated[split] = file.category_records()
            for row in format.categories(stated[split], file.index.path):
                known = rows.setdefault(row.category_id, row)
                if (known.name, known.source_id) != (row.name, row.source_id):
                    raise SourceError(
                        f"category {row.source_id} is {row.name!r}, but {known.name!r} in another split",
                        where=file.index.path,
                        fix="convert splits with different categories one by one",
                    )
        first = next(iter(stated.values()))
        self.categories = tuple(rows.values())
        complete = len(first) == sum(row.source_id is not None for row in self.categories)
        self.other = {
            split: own
            for split, own in stated.items()
            if own != first or not complete or any(_LINKS & row.keys() for row in own)
        }
