"""IN-S11: the training images of PartImageNet with their super-category as an image-level label.

Raw folder: that of :mod:`partseg.datasets.partimagenet`.

Every image with at least one annotation is taken, in the order of the first annotations; its label is the
super-category of its first annotation. The eleven categories have the ids 1 to 11; VLPart's files begin at 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from partseg.datasets.formats.coco_file import CocoFile, Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource
from partseg.datasets.partimagenet import FIX, part_objects, photo, supercategories
from partseg.datasets.source import Raw
from partseg.layout import Category, Record


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`."""

    USUAL: ClassVar[Mapping[str, str]] = {split: f"{split}.json" for split in ("train", "val", "test")}
    splits: tuple[str, ...] = ("train",)


_FORMAT = Format(fix=FIX, photo=photo)
_SOURCE = CocoSource(_FORMAT)


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: an annotation file is missing.
    """
    return _SOURCE.files(root, options)


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """The super-categories."""
    return tuple(
        Category(category_id=place + 1, name=name, kind="object", source_id=place)
        for place, name in enumerate(supercategories())
    )


def splits(raw: Raw, options: Options) -> Mapping[str, Sequence[str]]:
    """The ids of the images that have annotations, in the order of their first annotations.

    Raises:
        SourceError: a file is damaged, or (unless ``allow_missing``) a photo is missing.
    """
    _SOURCE.splits(raw, options)  # that the photos are there
    found = {}
    for split, file in _files(raw, options).items():
        keys, first = file.keys(), _first_annotations(file)
        chosen = np.flatnonzero(first >= 0)
        found[split] = [keys[row] for row in chosen[np.argsort(first[chosen])].tolist()]
    return found


def details(raw: Raw, options: Options) -> Mapping[str, Mapping[str, Any]]:
    """Everything at the top of the files except images, annotations and categories."""
    return {
        split: {**file.details(), "annotation_fields": []} for split, file in _files(raw, options).items()
    }


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """The images ``keys``, each with one label and without annotations.

    Raises:
        SourceError: a file is missing or damaged.
    """
    file = _files(raw, options)[split]
    labels = _labels(file, keys)
    for key, record, label in zip(keys, file.read(keys, (), annotated=False), labels, strict=True):
        if record.image is None:
            yield record
        elif label is None:
            message = f"the first annotation of image {key} has no category of PartImageNet"
            yield Record.dropped(key, "unknown-category", message, record.findings)
        else:
            name = record.image.file_name.split("/", 1)[1]
            extra = {**(record.image.extra or {}), "file_name": name}
            image = replace(record.image, pos_category_ids=(label,), extra=extra)
            yield replace(record, image=image)


def _files(raw: Raw, options: Options) -> dict[str, CocoFile]:
    return {split: CocoFile(raw, name, split, _FORMAT, options) for split, name in options.names().items()}


def _first_annotations(file: CocoFile) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each image the place of its first annotation; -1 where it has none."""
    order, starts = file.index.groups("annotations", "image_id", "images", "id")
    filled = starts[1:-1] > starts[:-2]
    first = np.full(len(filled), -1, np.int64)
    first[filled] = order[starts[:-2][filled]]
    return first


def _labels(file: CocoFile, keys: Sequence[str]) -> list[int | None]:
    """The category of each image; None where its first annotation has none."""
    rows = file.rows(keys)
    places = _first_annotations(file)[rows]
    numbers = file.index.integers("annotations", "category_id")[places].tolist()
    objects = part_objects(file.category_records(), file.index.path)
    return [objects[number][0] + 1 if number in objects else None for number in numbers]
