"""COCO 2017 instances.

Raw folder::

    annotations/instances_{train,val}2017.json
    {train,val}2017/000000000139.jpg

Category ids are COCO's, 1 to 90 with gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`."""

    USUAL: ClassVar[Mapping[str, str]] = {
        "train2017": "annotations/instances_train2017.json",
        "val2017": "annotations/instances_val2017.json",
    }
    splits: tuple[str, ...] = ("train2017", "val2017")


def _photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
    return f"{split}/{image['file_name']}"


_SOURCE = CocoSource(
    Format(fix="unpack annotations_trainval2017.zip, train2017.zip and val2017.zip there", photo=_photo)
)
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
