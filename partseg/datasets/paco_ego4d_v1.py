"""PACO-Ego4D: objects, parts and attributes on frames of videos.

Raw folder::

    annotations/paco_ego4d_v1_{train,val,test}.json
    images/*.jpeg

See :mod:`partseg.datasets.formats.paco` for the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource
from partseg.datasets.formats.paco import PARENT_KEY, paco_categories


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`."""

    USUAL: ClassVar[Mapping[str, str]] = {
        split: f"annotations/paco_ego4d_v1_{split}.json" for split in ("train", "val", "test")
    }
    splits: tuple[str, ...] = ("train", "val", "test")


def _photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
    return f"images/{image['file_name']}"


_SOURCE = CocoSource(
    Format(
        fix="unpack paco_ego4d_v1.zip into annotations, and the frames (Ego4D's paco_frames) into images",
        photo=_photo,
        categories=paco_categories,
        parent_key=PARENT_KEY,
    )
)
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
