"""Cityscapes Panoptic Parts 2.0: Cityscapes with the parts of persons, riders, cars, trucks and buses.

Raw folder::

    gtFinePanopticParts/{train,val}/<city>/<city>_000000_000019_gtFinePanopticParts.tif
    leftImg8bit/{train,val}/<city>/<city>_000000_000019_leftImg8bit.png

34 classes, 19 of them evaluated, 8 of those things; 23 part classes. Some ten files of the release have
pixels of part 5 on a person or rider, who have four parts: they stay in the map and in the object, and are
reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

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

_MAPS, _MAP = "gtFinePanopticParts", "_gtFinePanopticParts.tif"
_PHOTOS, _PHOTO = "leftImg8bit", "_leftImg8bit.png"
_PARTS = 23
_FIX = "unpack gtFinePanopticParts.zip and leftImg8bit_trainvaltest.zip of Cityscapes into the raw folder"


class Options(PartsOptions):
    """Settings of the conversion.

    Attributes:
        splits: folders of ``gtFinePanopticParts`` to convert.
    """

    splits: tuple[str, ...] = ("train", "val")


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: maps or (unless ``allow_missing``) photos are missing.
    """
    found = [_files(split, _key(uids)) for split in options.splits for uids in _maps(root, split)]
    if not options.allow_missing:
        check_photos(root, (item.photo for item in found), options.images, _FIX)
    return existing(root, found, options)


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """34 classes, whose ids are the source's (1 to 34), and 23 parts, sid * 100 + pid."""
    return part_categories("cityscapes_pp", _PARTS)


def splits(raw: Raw, options: Options) -> Mapping[str, Sequence[str]]:
    """Keys such as ``aachen_000000_000019`` of each split, sorted.

    Raises:
        SourceError: a split has no maps.
    """
    return {split: [_key(uids) for uids in _maps(raw.root, split)] for split in options.splits}


def details(raw: Raw, options: Options) -> Mapping[str, Mapping[str, Any]]:
    """What the numbers in the maps are."""
    return {split: {PANOPTIC_IDS: "panoptic-parts"} for split in options.splits}


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Objects, parts and stuff of the images ``keys``; the group of an image is its city.

    Raises:
        SourceError: as :func:`partseg.datasets.formats.panoptic_parts.read_image`.
    """
    classes = part_classes("cityscapes_pp", _PARTS)
    for key in keys:
        yield read_image(raw.root, key, _files(split, key), classes, options, _FIX)


def _maps(root: Path, split: str) -> list[str]:
    return find_maps(root, f"{_MAPS}/{split}", f"*/*{_MAP}", _FIX)


def _key(uids: str) -> str:
    return PurePosixPath(uids).name.removesuffix(_MAP)


def _files(split: str, key: str) -> Files:
    city = key.partition("_")[0]
    return Files(
        uids=f"{_MAPS}/{split}/{city}/{key}{_MAP}",
        photo=f"{_PHOTOS}/{split}/{city}/{key}{_PHOTO}",
        group=city,
    )
