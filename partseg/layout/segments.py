"""The whole segments of each image, objects and stuff without their parts, as panoptic formats list them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson

from partseg.layout.split import Split

ANNOTATION = "panoptic_annotation"
"""Key of an image's extra: fields of its annotation that are not modelled, a file name that does not follow
from the image's, and the place in the list of an annotation without segments (``row``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One object or stuff segment.

    Attributes:
        source_id: the value of its pixels in the panoptic map.
        box_xywh: pixels, whole numbers as int.
        area: pixels, a whole number as int.
    """

    source_id: int
    category_id: int
    box_xywh: list[int | float]
    area: int | float
    is_crowd: bool
    rle: bytes | None
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSegments:
    """One image and its segments, in the order of the source.

    Attributes:
        index: place in the split.
        key: the source's numeric id of the image, or its name where it has none.
        row: place of its annotation in the source's list, -1 where that is not known.
    """

    index: int
    key: int | str
    file_name: str
    height: int
    width: int
    row: int
    extra: dict[str, Any]
    segments: list[Segment]

    @property
    def stem(self) -> str:
        """Name of the image's file without folder and suffix."""
        return PurePosixPath(self.file_name).stem


def image_segments(split: Split) -> Iterator[ImageSegments]:
    """Every image of a split with its segments; parts and rows without a source id are left out."""
    images, annotations = split.batch("images"), split.batch("annotations")
    columns = {
        name: annotations[name].to_numpy()
        for name in ("source_id", "category_id", "area", "is_crowd", "parent_row", "source_row")
    }
    boxes = annotations["bbox"].flatten().to_numpy().reshape(-1, 4)
    fixed = {name: images[name].to_numpy() for name in ("source_id", "height", "width")}
    starts, counts = images["ann_offset"].to_numpy(), images["ann_count"].to_numpy()
    for index in range(images.num_rows):
        start = int(starts[index])
        rows = start + np.flatnonzero(
            (columns["parent_row"][start : start + counts[index]] < 0)
            & (columns["source_id"][start : start + counts[index]] >= 0)
        )
        values = zip(
            columns["source_id"][rows].tolist(),
            columns["category_id"][rows].tolist(),
            boxes[rows].tolist(),
            columns["area"][rows].tolist(),
            columns["is_crowd"][rows].tolist(),
            rows.tolist(),
            strict=True,
        )
        extra = _extra(images, index)
        source_id = int(fixed["source_id"][index])
        yield ImageSegments(
            index=index,
            key=source_id if source_id >= 0 else images["source_key"][index].as_py(),
            file_name=images["file_name"][index].as_py(),
            height=int(fixed["height"][index]),
            width=int(fixed["width"][index]),
            row=int(columns["source_row"][rows[0]])
            if len(rows)
            else extra.get(ANNOTATION, {}).get("row", -1),
            extra=extra,
            segments=[
                Segment(
                    source_id=segment,
                    category_id=category,
                    box_xywh=[_plain(side) for side in box],
                    area=_plain(area),
                    is_crowd=bool(crowd),
                    rle=annotations["rle"][row].as_py() or None,
                    extra=_extra(annotations, row),
                )
                for segment, category, box, area, crowd, row in values
            ],
        )


def _extra(batch: Any, row: int) -> dict[str, Any]:
    text = batch["extra"][row].as_py()
    extra: dict[str, Any] = orjson.loads(text) if text else {}
    return extra


def _plain(value: float) -> int | float:
    """COCO writes whole numbers without a point."""
    return int(value) if value.is_integer() else value
