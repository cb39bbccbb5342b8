"""Annotations of a COCO-like file to rows of the layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from partseg.datasets.formats.coco_masks import Shape, shapes
from partseg.layout import AnnotationRow, Finding
from partseg.layout.runs import rle_area, rle_bbox

MODELLED = ("id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd")
"""Keys of an annotation that columns of the layout state in every COCO-like format."""

Problem = tuple[str, str]  # reason and message of a finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """What holds for all annotations of one file.

    Attributes:
        known: category of the layout for each category id of the file.
        parents: object category of each part category of the layout.
        header: the keys that columns state; others, and what a column cannot state exactly, go to ``extra``.
        parent_key: the key that names the object of a part: "parent_id", or "obj_ann_id" (where an object
            names itself).
        repeated: annotation ids that are used more than once.
    """

    known: Mapping[int, int]
    parents: Mapping[int, int]
    header: frozenset[str]
    parent_key: str = "parent_id"
    repeated: frozenset[int] = frozenset()


class _LeftOut(Exception):
    """An annotation that cannot be a row, as a problem."""


def annotation_rows(
    records: Sequence[Mapping[str, Any]],
    positions: Sequence[int],
    key: str,
    size: tuple[int, int],
    context: Annotations,
) -> tuple[list[AnnotationRow], list[Finding]]:
    """The annotations of one image.

    Args:
        records: as parsed.
        positions: of the records in the file's list.
        key: the image's name, for findings.
        size: height and width of the image, pixels.
        context: what holds for the whole file.

    Returns:
        The rows, objects before their parts and otherwise in the order of ``records``; and what was left out
        or is not as it should be.
    """
    order: Sequence[int] = range(len(records))
    if context.parent_key in context.header:
        is_part = [_parent(record, context.parent_key) is not None for record in records]
        order = sorted(order, key=is_part.__getitem__)
    rows: list[AnnotationRow] = []
    findings: list[Finding] = []
    objects: dict[Any, int] = {}  # id of an object to its row
    found = shapes([record.get("segmentation") for record in records], size)
    for index in order:
        record, problems = records[index], list[Problem]()
        try:
            row = _row(record, positions[index], found[index], size[0], objects, context, problems)
        except _LeftOut as error:
            problems = [error.args]
        else:
            if row.parent is None:
                objects.setdefault(row.source_id, len(rows))
            rows.append(row)
        for reason, message in problems:
            name = f"annotation {record.get('id')!r:.40} ({positions[index]} in the file)"
            findings.append(Finding(source_key=key, reason=reason, message=f"{name} {message}"))
    return rows, findings


def _parent(record: Mapping[str, Any], parent_key: str) -> Any:
    """What a part names as its object; None for an object."""
    parent = record.get(parent_key)
    return None if parent_key == "obj_ann_id" and parent == record.get("id") else parent


def _row(
    record: Mapping[str, Any],
    position: int,
    shape: Shape,
    height: int,
    objects: Mapping[Any, int],
    context: Annotations,
    problems: list[Problem],
) -> AnnotationRow:
    category_id, header = record.get("category_id"), context.header
    if type(category_id) is not int or category_id not in context.known:
        raise _LeftOut(
            "unknown-category", f"has category {category_id!r:.40}, which the file does not define"
        )
    extra = {name: value for name, value in record.items() if name not in header}
    if not header <= record.keys():
        extra["absent"] = sorted(header - record.keys())
    source_id = record.get("id")
    if type(source_id) is not int or not -(2**63) <= source_id < 2**63:
        problems.append(("bad-annotation-id", "has an id that is not an integer"))
        extra["id"], source_id = source_id, None
    elif source_id in context.repeated:
        problems.append(("repeated-annotation-id", "has an id that another one has as well"))
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        extra["iscrowd"] = crowd
    _note_form(shape, record, bool(crowd), extra, problems)
    row = AnnotationRow(
        category_id=context.known[category_id],
        bbox_xywh=_box(record, shape.rle, height),
        area=_area(record, shape.rle),
        rle=shape.rle,
        polygons=shape.polygons,
        parent=_link(record, context.parent_key, objects, extra, problems),
        is_crowd=bool(crowd),
        is_ignore=_flag(record, "ignore", extra),
        attributes=_attributes(record, extra, problems),
        score=_score(record, extra, problems),
        source_id=source_id,
        source_row=position,
        extra=extra or None,
    )
    return row


def _note_form(
    shape: Shape, record: Mapping[str, Any], is_crowd: bool, extra: dict[str, Any], problems: list[Problem]
) -> None:
    """How the segmentation is written, where that is not the usual for its kind."""
    if shape.problem is not None:
        problems.append(shape.problem)
    if shape.written == "polygons":
        return
    if shape.written is None:
        if "segmentation" in record:
            extra["segmentation"] = record["segmentation"]
    elif shape.written != ("uncompressed" if is_crowd else "compressed"):
        extra["segmentation_form"] = shape.written


def _box(record: Mapping[str, Any], rle: bytes | None, height: int) -> tuple[float, float, float, float]:
    if "bbox" in record:
        try:
            x, y, w, h = record["bbox"]
            if w >= 0 and h >= 0 and isfinite(x + y + w + h):
                return float(x), float(y), float(w), float(h)
        except (TypeError, ValueError, OverflowError):
            pass
        raise _LeftOut("bad-box", f"has a box that is not x, y, width, height: {record['bbox']!r:.80}")
    if rle is None:
        raise _LeftOut("bad-box", "has neither a box nor a mask")
    x, y, w, h = rle_bbox(rle, height)
    return float(x), float(y), float(w), float(h)


def _area(record: Mapping[str, Any], rle: bytes | None) -> float:
    if "area" in record:
        try:
            if isfinite(area := record["area"]):
                return float(area)
        except (TypeError, OverflowError):
            pass
        raise _LeftOut("bad-area", f"has an area that is not a number: {record['area']!r:.40}")
    if rle is not None:
        return float(rle_area(rle))
    _, _, w, h = record["bbox"]
    return float(w * h)


def _link(
    record: Mapping[str, Any],
    parent_key: str,
    objects: Mapping[Any, int],
    extra: dict[str, Any],
    problems: list[Problem],
) -> int | None:
    """The row of a part's object."""
    if parent_key not in record:
        return None
    wanted = _parent(record, parent_key)
    if type(wanted) is int and wanted in objects:
        return objects[wanted]
    if wanted is not None:
        problems.append(
            ("unknown-object", f"names {wanted!r:.40} as its object, which is none of this image")
        )
        extra[parent_key] = wanted
    elif parent_key == "parent_id":
        extra[parent_key] = wanted  # null, which an export does not write by itself
    return None


def _flag(record: Mapping[str, Any], name: str, extra: dict[str, Any]) -> bool:
    value = record.get(name, 0)
    if value not in (0, 1):
        extra[name] = value
    return bool(value)


def _attributes(record: Mapping[str, Any], extra: dict[str, Any], problems: list[Problem]) -> tuple[int, ...]:
    if "attribute_ids" not in record:
        return ()
    values = record["attribute_ids"]
    if type(values) is list and all(type(value) is int and abs(value) < 2**31 for value in values):
        return tuple(values)
    problems.append(("bad-attributes", "has attributes that are not a list of ids"))
    extra["attribute_ids"] = values
    return ()


def _score(record: Mapping[str, Any], extra: dict[str, Any], problems: list[Problem]) -> float | None:
    if "score" not in record:
        return None
    score = record["score"]
    if type(score) not in (int, float) or not 0 <= score <= 1:
        problems.append(("bad-score", f"has a score that is not a number from 0 to 1: {score!r:.40}"))
        extra["score"] = score
        return None
    if float(np.float32(score)) != score:
        extra["score"] = score  # the column is too narrow to give back every digit
    return float(score)
