"""Anybody's COCO-like files, among them partseg's own export.

Raw folder::

    train.json           (one file per split, named in ``annotations``)
    images/...           (``folder`` of the split, then the file names of the images)

Beyond COCO's keys, those of partseg's export are understood: ``kind`` and ``parent_id`` of a category;
``parent_id``, ``ignore``, ``score`` and ``attribute_ids`` of an annotation, and image-level labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`.

    Attributes:
        folder: folder of each split's photos, relative to the raw root; the root itself by default.
    """

    folder: dict[str, str] = Field(default={})


def _photo(split: str, image: Mapping[str, Any], options: Options) -> str:
    folder, name = options.folder.get(split), str(image["file_name"])
    return f"{folder}/{name}" if folder else name


_SOURCE = CocoSource(
    Format(fix="name the files in annotations, and the folder of each split's photos in folder", photo=_photo)
)
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
