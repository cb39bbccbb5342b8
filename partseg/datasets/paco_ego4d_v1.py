"""PACO-Ego4D: objects, parts and attributes on frames of videos.

Raw folder::

    annotations/paco_ego4d_v1_{train,val,test}.json
    images/*.jpeg

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
        split: f"annotations/paco_ego4d_v1_{split}.json" for split in ("train", "val", "test")
    }
    splits: tuple[str, ...] = ("train", "val", "test")


_SOURCE = paco_source(
    fix="unpack paco_ego4d_v1.zip into annotations, and the frames (Ego4D's paco_frames) into images",
    photos="images/",
)
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
