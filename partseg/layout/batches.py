"""Records to Arrow batches: what a worker of a converter sends back instead of Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from partseg.errors import LayoutError
from partseg.layout.pandas_first import import_pandas
from partseg.layout.records import AnnotationRow, Category, Finding, ImageRow, PanopticMap, Record
from partseg.layout.schema import ANNOTATIONS, CATEGORIES, FINDINGS, IMAGES, PANOPTIC, POLYGONS

# Columns that only the writer can fill in: they are the same for a whole dataset.
_BY_WRITER = ("origin", "run_id")
CHUNK_ANNOTATIONS = pa.schema([field for field in ANNOTATIONS if field.name not in _BY_WRITER])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive records of one split. Image ids, annotation ids and row offsets count from 0.

    Attributes:
        polygons: one row per annotation that has outlines, in the order of the annotations.
        panoptic: one row per image that has a map, in the order of the images.
        records: how many source records went in; ``images.num_rows + dropped``.
        dropped: how many of them have no image.
    """

    images: pa.RecordBatch
    annotations: pa.RecordBatch
    findings: pa.RecordBatch
    polygons: pa.RecordBatch
    panoptic: pa.RecordBatch
    records: int
    dropped: int


def encode(records: Iterable[Record]) -> Chunk:
    """One chunk.

    Raises:
        LayoutError: a record breaks a rule of the layout (parent after its part, silent drop).
    """
    import_pandas()
    images: list[tuple[ImageRow, int, int]] = []
    annotations: list[tuple[AnnotationRow, int, int | None]] = []
    findings: list[Finding] = []
    maps: list[tuple[int, PanopticMap]] = []
    count = 0
    for record in records:
        count += 1
        findings.extend(record.findings)
        if record.image is None:
            _check_dropped(record)
            continue
        offset = len(annotations)
        for row, parent in _ordered(record.image.source_key, record.annotations):
            annotations.append((row, len(images), None if parent is None else offset + parent))
        if record.panoptic is not None:
            maps.append((len(images), record.panoptic))
        images.append((record.image, offset, len(annotations) - offset))
    return Chunk(
        images=_images(images),
        annotations=_annotations(annotations),
        findings=_plain(FINDINGS, findings),
        polygons=_polygons([row for row, _, _ in annotations]),
        panoptic=_panoptic(maps),
        records=count,
        dropped=count - len(images),
    )


def encode_categories(categories: Sequence[Category]) -> pa.RecordBatch:
    """The category table."""
    columns = {name: [getattr(row, name) for row in categories] for name in CATEGORIES.names}
    columns["extra"] = [_json(row.extra) for row in categories]
    return _columns(CATEGORIES, columns)


def _check_dropped(record: Record) -> None:
    if record.annotations or record.panoptic or not any(finding.image_dropped for finding in record.findings):
        keys = ", ".join(finding.source_key for finding in record.findings) or "without a finding"
        raise LayoutError(
            "a record without an image needs a finding with image_dropped and no annotations",
            where=f"record {keys}",
        )


def _ordered(key: str, rows: Sequence[AnnotationRow]) -> list[tuple[AnnotationRow, int | None]]:
    """Every object directly before its parts, otherwise in the given order; parents as new positions."""
    for index, row in enumerate(rows):
        parent = row.parent
        if parent is not None and not (0 <= parent < index and rows[parent].parent is None):
            raise LayoutError(
                f"annotation {index} has parent {parent}, which is not an object before it",
                where=f"record {key}",
            )
    roots = [index if row.parent is None else row.parent for index, row in enumerate(rows)]
    order = sorted(range(len(rows)), key=lambda index: (roots[index], index))
    position = {old: new for new, old in enumerate(order)}
    return [(rows[i], None if (p := rows[i].parent) is None else position[p]) for i in order]


def _json(extra: Any) -> str | None:
    return orjson.dumps(extra, option=orjson.OPT_SORT_KEYS).decode() if extra else None


def _images(rows: Sequence[tuple[ImageRow, int, int]]) -> pa.RecordBatch:
    images = [image for image, _, _ in rows]
    columns = {name: [getattr(image, name) for image in images] for name in ImageRow.__slots__}
    columns["image_id"] = list(range(len(rows)))
    columns["ann_offset"] = [offset for _, offset, _ in rows]
    columns["ann_count"] = [count for _, _, count in rows]
    columns["extra"] = [_json(image.extra) for image in images]
    return _columns(IMAGES, columns)


def _annotations(rows: Sequence[tuple[AnnotationRow, int, int | None]]) -> pa.RecordBatch:
    annotations = [row for row, _, _ in rows]
    names = [name for name in AnnotationRow.__slots__ if name not in ("parent", "polygons")]
    columns = {name: [getattr(row, name) for row in annotations] for name in names}
    columns["ann_id"] = list(range(len(rows)))
    columns["image_id"] = [image for _, image, _ in rows]
    columns["parent_id"] = [parent for _, _, parent in rows]
    columns["bbox"] = columns.pop("bbox_xywh")
    columns["extra"] = [_json(row.extra) for row in annotations]
    return _columns(CHUNK_ANNOTATIONS, columns)


def _polygons(rows: Sequence[AnnotationRow]) -> pa.RecordBatch:
    """Built level by level from flat values: several times faster than from nested lists."""
    ids = [index for index, row in enumerate(rows) if row.polygons is not None]
    nested = [rows[index].polygons or () for index in ids]
    rings = [ring for polygons in nested for ring in polygons]
    values = pa.array(np.concatenate([np.zeros(0), *rings]), pa.float64())
    inner = pa.LargeListArray.from_arrays(_offsets([len(ring) for ring in rings]), values)
    outer = pa.LargeListArray.from_arrays(_offsets([len(polygons) for polygons in nested]), inner)
    return pa.record_batch([pa.array(ids, pa.int64()), outer], schema=POLYGONS)


def _panoptic(maps: Sequence[tuple[int, PanopticMap]]) -> pa.RecordBatch:
    offsets = _offsets([len(item.runs.lengths) for _, item in maps])
    empty = [np.zeros(0, np.int64)]
    lengths = np.concatenate([item.runs.lengths for _, item in maps] or empty)
    labels = np.concatenate([item.runs.labels for _, item in maps] or empty)
    columns = [
        pa.array([index for index, _ in maps], pa.int64()),
        pa.array([item.file_name for _, item in maps], pa.string()),
        pa.LargeListArray.from_arrays(offsets, pa.array(lengths.astype(np.uint32))),
        pa.LargeListArray.from_arrays(offsets, pa.array(labels.astype(np.int32))),
    ]
    return pa.record_batch(columns, schema=PANOPTIC)


def _offsets(sizes: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(np.array(sizes, np.int64)))), pa.int64())


def _plain(schema: pa.Schema, rows: Sequence[Any]) -> pa.RecordBatch:
    """Rows whose fields are named like the columns."""
    return _columns(schema, {name: [getattr(row, name) for row in rows] for name in schema.names})


def _columns(schema: pa.Schema, columns: dict[str, list[Any]]) -> pa.RecordBatch:
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)
