"""Which images of two datasets are the same photo.

A dataset of labelled photos and one with annotations rarely call a photo alike:
``n02099601/n02099601_1.JPEG`` here, ``train/n02099601_1.jpg`` there. So file names are compared first, then
source keys, then file names without folder and suffix. A name that several images share is no name, and
images of different size are not the same photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """What an image is called; ``size`` is height and width in pixels, None where it is not known."""

    file_name: str
    source_key: str
    size: tuple[int, int] | None = None

    @property
    def stem(self) -> str:
        """The file name without folder and suffix."""
        return PurePosixPath(self.file_name).stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Pairs of two lists of images.

    Attributes:
        rows: for each image of the first list its place in the second one, or None.
        other_size: how many have the name of an image of another size.
    """

    rows: tuple[int | None, ...]
    other_size: int


def image_names(split: Any) -> list[ImageName]:
    """What the images of a split are called."""
    return [
        ImageName(
            file_name=record.file_name,
            source_key=record.source_key,
            size=(int(record.height), int(record.width)),
        )
        for record in (split[row] for row in range(len(split)))
    ]


def pair_images(images: Sequence[ImageName], others: Sequence[ImageName]) -> Paired:
    """Find each image in another list; no image of that list is taken twice."""
    rows: list[int | None] = [None] * len(images)
    other_size: set[int] = set()
    taken: set[int] = set()
    names: tuple[Callable[[ImageName], str], ...] = (
        lambda image: image.file_name,
        lambda image: image.source_key,
        lambda image: image.stem,
    )
    for name in names:
        open_rows = (row for row, found in enumerate(rows) if found is None and row not in other_size)
        own = _unique((name(images[row]), row) for row in open_rows)
        there = _unique((name(other), row) for row, other in enumerate(others) if row not in taken)
        for text, row in own.items():
            found = there.get(text)
            if found is None:
                continue
            sizes = images[row].size, others[found].size
            if None not in sizes and sizes[0] != sizes[1]:
                other_size.add(row)
            else:
                rows[row] = found
                taken.add(found)
    return Paired(rows=tuple(rows), other_size=len(other_size))


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    several: set[str] = set()
    for name, row in pairs:
        if name in found:
            several.add(name)
        found[name] = row
    return {name: row for name, row in found.items() if name not in several}
