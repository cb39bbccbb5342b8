"""LVIS v1: 1203 categories on COCO's photos, a part of them checked in each image.

Raw folder::

    annotations/lvis_v1_{train,val}.json
    annotations/lvis_v1_minival_inserted_image_name.json      (optional: the part of val in COCO's val2017)
    {train,val}2017/000000000139.jpg

Photos of both splits lie in both of COCO's folders, which ``coco_url`` names. Files like those of LVIS v0.5,
with COCO 2014 file names, are read as well.
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
        "train": "annotations/lvis_v1_train.json",
        "val": "annotations/lvis_v1_val.json",
        "minival": "annotations/lvis_v1_minival_inserted_image_name.json",
    }
    splits: tuple[str, ...] = ("train", "val")


def _photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
    """``train2017/000000155379.jpg`` of the URL; else of the file name, whose last 16 letters may be all."""
    if "coco_url" in image:
        folder, name = image["coco_url"].split("/")[-2:]
        return f"{folder}/{name[-16:] if name.startswith('COCO') else name}"
    name = str(image["file_name"])
    if "/" in name:
        return name
    folder = "train2017" if split == "train" else "val2017"
    return f"{folder}/{name[-16:] if name.startswith('COCO') else name}"


_SOURCE = CocoSource(
    Format(
        fix="unpack lvis_v1_{train,val}.json.zip into annotations, and COCO's photos beside it", photo=_photo
    )
)
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
