"""Pascal Panoptic Parts 2.0: PASCAL VOC 2010 with every pixel's class, instance and part.

Raw folder::

    labels/{training,validation}/2008_000002.tif
    JPEGImages/2008_000002.jpg

99 classes, 59 of them evaluated, 20 of them things. The files know the parts that Pascal-Part knows, such as
``lfleg`` and the third ``wheel`` of a car; the evaluations fold them into 57 or 107 part classes. Left and
right, first and second stay separate annotations of one category.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from partseg.datasets.formats.panoptic_parts import (
    Files,
    PartsOptions,
    existing,
    find_maps,
    part_categories,
    part_classes,
    read_image,
)
from partseg.datasets.formats.photos import check_photos
from partseg.datasets.source import Raw
from partseg.layout import Category, Record
from partseg.layout.export.panoptic import PANOPTIC_IDS

_FIX = "put labels/ of pascal_panoptic_parts_v2.0 and JPEGImages/ of VOC2010 into the raw folder"


class Options(PartsOptions):
    """Settings of the conversion.

    Attributes:
        parts: 57 or 107 for the part classes of an evaluation, 194 for those of the dataset itself.
        splits: folders of ``labels`` to convert.
    """

    parts: Literal[57, 107, 194] = 57
    splits: tuple[str, ...] = ("training", "validation")


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: maps or (unless ``allow_missing``) photos are missing.
    """
    found = [_files(uids) for split in options.splits for uids in _maps(root, split)]
    if not options.allow_missing:
        check_photos(root, (item.photo for item in found), options.images, _FIX)
    return existing(root, found, options)


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """99 classes, whose ids are the source's (1 to 99), and the part classes, sid * 100 + number."""
    return part_categories("pascal_pp", options.parts)


def splits(raw: Raw, options: Options) -> Mapping[str, Sequence[str]]:
    """Image names of each split, sorted.

    Raises:
        SourceError: a split has no maps.
    """
    return {split: [PurePosixPath(uids).stem for uids in _maps(raw.root, split)] for split in options.splits}


def details(raw: Raw, options: Options) -> Mapping[str, Mapping[str, Any]]:
    """What the numbers in the maps are."""
    return {split: {PANOPTIC_IDS: "panoptic-parts"} for split in options.splits}


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Objects, parts and stuff of the images ``keys``.

    Raises:
        SourceError: as :func:`partseg.datasets.formats.panoptic_parts.read_image`.
    """
    classes = part_classes("pascal_pp", options.parts)
    for key in keys:
        item = _files(f"labels/{split}/{key}.tif")
        yield read_image(raw.root, key, item, classes, options, _FIX)


def _maps(root: Path, split: str) -> list[str]:
    return find_maps(root, f"labels/{split}", "*.tif", _FIX)


def _files(uids: str) -> Files:
    return Files(uids=uids, photo=f"JPEGImages/{PurePosixPath(uids).stem}.jpg")
