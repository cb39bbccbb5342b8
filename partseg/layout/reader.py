"""Opens datasets in the common layout."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import orjson

from partseg.errors import LayoutError
from partseg.files import default_cache
from partseg.layout.manifest import Manifest, read_manifest
from partseg.layout.records import Category
from partseg.layout.schema import CATEGORIES, read_parquet
from partseg.layout.split import Split


class Dataset:
    """A dataset in the common layout; see :meth:`open`."""

    def __init__(self, folder: Path, manifest: Manifest, image_root: Path | None, cache: Path) -> None:
        self.folder, self.manifest, self.image_root, self.cache = folder, manifest, image_root, cache

    @classmethod
    def open(
        cls, path: str | Path, *, image_root: str | Path | None = None, cache: str | Path | None = None
    ) -> Dataset:
        """Open the dataset in folder ``path``.

        Args:
            path: the folder that holds ``dataset.json``.
            image_root: the local folder of the raw source that holds the images.
            cache: where working files go; by default ``$PARTSEG_CACHE`` or ``.partseg/cache``.

        Raises:
            LayoutError: there is no dataset, it is damaged, or its format cannot be read.
        """
        folder = Path(path).absolute()
        root = None if image_root is None else Path(image_root).absolute()
        where = default_cache() if cache is None else Path(cache)
        return cls(folder, read_manifest(folder), root, where.absolute())

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.manifest.splits)

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            LayoutError: there is no such split.
        """
        if name not in self.manifest.splits:
            raise LayoutError(
                f"no split {name!r}", where=self.folder, fix=f"it has: {', '.join(self.manifest.splits)}"
            )
        return Split(self.folder, name, self.image_root, self.cache)

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """The category table, in the order of the file."""
        path = self.folder / self.manifest.categories.path
        if not path.is_file():
            raise LayoutError("the category table is missing", where=path, fix="fetch or convert it again")
        rows = read_parquet(path, CATEGORIES).to_pylist()
        return tuple(
            Category(
                **{
                    **row,
                    "synonyms": tuple(row["synonyms"]),
                    "extra": orjson.loads(row["extra"]) if row["extra"] else None,
                }
            )
            for row in rows
        )

    def category(self, name: str) -> Category:
        """The category called ``name``.

        Raises:
            LayoutError: there is none.
        """
        for category in self.categories:
            if category.name == name:
                return category
        raise LayoutError(f"no category {name!r}", where=self.folder)
