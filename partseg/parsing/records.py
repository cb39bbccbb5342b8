"""Parsed parts as records of the common layout.

Every part is renamed to the image's label and written under one object of that label. A detector that looks
for objects as well gives an image's objects itself: they are written as they are found, of whatever label,
and the parts beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from partseg.errors import LayoutError
from partseg.layout import (
    AnnotationRow,
    Category,
    ImageRecord,
    ImageRow,
    Record,
    mask_to_rle,
    rle_area,
    rle_to_mask,
)
from partseg.parsing.config import ParserConfig
from partseg.parsing.naming import rename, spellings
from partseg.parsing.parts import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The categories that may be written.

    Attributes:
        ids: name -> category id.
        spellings: name in lower case -> name.
        finds_objects: whether objects are written as they are found, or one that covers all parts.
    """

    ids: Mapping[str, int]
    spellings: Mapping[str, str]
    finds_objects: bool

    @classmethod
    def of(cls, categories: Sequence[Category], *, finds_objects: bool) -> Table:
        """The table of a dataset's categories."""
        ids = {category.name: category.category_id for category in categories}
        return cls(ids=ids, spellings=spellings(ids), finds_objects=finds_objects)


def record_of(
    source: ImageRecord,
    label: str | None,
    parts: Iterable[Part],
    table: Table,
    config: ParserConfig,
    sha256: bytes | None,
    source_id: int | None,
) -> Record:
    """An image with its object and the parts that have a name there; a finding where nothing was found.

    Args:
        source: the image.
        label: the name of its label, if it has one.
        parts: what was found, in its pixels.
        table: what may be written.
        config: how names are put together.
        sha256: digest of the image file.
        source_id: the image's id in its source, if it has one.

    Raises:
        LayoutError: the table lacks the label.
    """
    if label is None:
        return Record.dropped(source.source_key, "image-without-label", "the image has no label")
    if label not in table.ids:
        raise LayoutError(
            f"the vocabulary to write has no category named '{label}'",
            where=source.file_name,
            fix="write with the categories of a dataset that has this object",
        )
    size = (int(source.height), int(source.width))
    named = [(rename(part.name, label, table.spellings, config), part) for part in parts]
    rows = [row for name, part in named if name is not None and (row := _row(part, table.ids[name], size))]
    if not rows:
        message = f"no part was found in this image of '{label}'"
        return Record.dropped(source.source_key, "no-part-found", message)
    image = ImageRow(
        file_name=source.file_name,
        height=size[0],
        width=size[1],
        pos_category_ids=(table.ids[label],),
        source_key=source.source_key,
        sha256=sha256,
        source_id=source_id,
    )
    if table.finds_objects:  # which of them a part belongs to is not known
        return Record(image=image, annotations=tuple(rows), findings=())
    whole = _object_row(rows, table.ids[label], size)
    owned = (replace(row, parent=0) for row in rows)
    return Record(image=image, annotations=(whole, *owned), findings=())


def _row(part: Part, category_id: int, size: tuple[int, int]) -> AnnotationRow | None:
    """A part clipped to the image; None if nothing is left of it."""
    height, width = size
    x0, y0, x1, y1 = part.box
    x0, x1 = max(0.0, min(x0, width)), max(0.0, min(x1, width))
    y0, y1 = max(0.0, min(y0, height)), max(0.0, min(y1, height))
    if x1 <= x0 or y1 <= y0:
        return None
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=float(rle_area(part.rle)) if part.rle is not None else (x1 - x0) * (y1 - y0),
        rle=part.rle,
        score=part.score,
        extra=dict(part.extra),
    )


def _object_row(parts: Sequence[AnnotationRow], category_id: int, size: tuple[int, int]) -> AnnotationRow:
    """The object the label names: everything its parts cover. Its true outline is not known."""
    corners = np.array([row.bbox_xywh for row in parts])
    low, high = corners[:, :2].min(axis=0), (corners[:, :2] + corners[:, 2:]).max(axis=0)
    covered = np.zeros(size, dtype=bool)
    for row in parts:
        if row.rle is not None:
            covered |= rle_to_mask(row.rle, *size)
    box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=box,
        area=float(covered.sum()) if covered.any() else box[2] * box[3],
        rle=mask_to_rle(covered) if covered.any() else None,
        score=max(float(row.score or 0) for row in parts),
        extra={"extent": "union of the parts"},
    )
