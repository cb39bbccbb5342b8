"""PACO-LVIS: objects, parts and attributes on COCO's photos.

Raw folder::

    annotations/paco_lvis_v1_{train,val,test}.json
    {train,val}2017/000000000139.jpg

See :mod:`partseg.datasets.formats.paco` for the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.paco import paco_source


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`."""

    USUAL: ClassVar[Mapping[str, str]] = {
        split: f"annotations/paco_lvis_v1_{split}.json" for split in ("train", "val", "test")
    }
    splits: tuple[str, ...] = ("train", "val", "test")


# File names begin with COCO's folder.
_SOURCE = paco_source(fix="unpack paco_lvis_v1.zip into annotations, and COCO's photos beside it", photos="")
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
