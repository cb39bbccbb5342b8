"""Arrow schemas of layout format 1.1 and how its tables are written to parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT_VERSION = "1.1"

# 65,536 annotations are about 11 MB of LVIS-like rows; smaller groups only help remote reads of one image.
ROW_GROUP = 65_536


def _field(name: str, kind: pa.DataType, *, nullable: bool = False, **meta: str) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata=meta or None)


def _table(name: str, *fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={"partseg.table": name, "partseg.schema_version": FORMAT_VERSION})


# Fields are nullable inside lists because that is what parquet gives back.
_IDS = pa.list_(pa.int32())
_LABEL = pa.dictionary(pa.int32(), pa.string())

CATEGORIES = _table(
    "categories",
    _field("category_id", pa.int32()),
    _field("name", pa.string()),
    _field("kind", pa.string()),
    _field("parent_id", pa.int32(), nullable=True),
    _field("group", pa.string(), nullable=True),
    _field("supercategory", pa.string(), nullable=True),
    _field("synset", pa.string(), nullable=True),
    _field("frequency", pa.string(), nullable=True),
    _field("synonyms", pa.list_(pa.string())),
    _field("is_thing", pa.bool_()),
    _field("colour", pa.int32(), nullable=True, encoding="0xRRGGBB"),
    _field("source_id", pa.int64(), nullable=True),
    _field("source_name", pa.string(), nullable=True),
    _field("extra", pa.large_string(), nullable=True, encoding="json"),
)

IMAGES = _table(
    "images",
    _field("image_id", pa.int64()),
    _field("file_name", pa.string(), encoding="posix path relative to the root of the image source"),
    _field("height", pa.int32(), unit="px"),
    _field("width", pa.int32(), unit="px"),
    _field("sha256", pa.binary(32), nullable=True),
    _field("ann_offset", pa.int64()),
    _field("ann_count", pa.int32()),
    _field("pos_category_ids", _IDS),
    _field("neg_category_ids", _IDS),
    _field("not_exhaustive_category_ids", _IDS),
    _field("group", pa.string(), nullable=True),
    _field("source_key", pa.string()),
    _field("source_id", pa.int64(), nullable=True),
    _field("licence", pa.string(), nullable=True),
    _field("extra", pa.large_string(), nullable=True, encoding="json"),
)

ANNOTATIONS = _table(
    "annotations",
    _field("ann_id", pa.int64()),
    _field("image_id", pa.int64()),
    _field("category_id", pa.int32()),
    _field("parent_id", pa.int64(), nullable=True),
    _field("bbox", pa.list_(pa.float64(), 4), unit="px", box="xywh"),
    _field("area", pa.float64(), unit="px"),
    _field("is_crowd", pa.bool_()),
    _field("is_ignore", pa.bool_()),
    _field("rle", pa.large_binary(), nullable=True, encoding="coco-rle"),
    _field("attributes", _IDS),
    _field("score", pa.float32(), nullable=True),
    _field("origin", _LABEL),
    _field("run_id", _LABEL, nullable=True),
    _field("source_id", pa.int64(), nullable=True),
    _field("source_row", pa.int64(), nullable=True),
    _field("extra", pa.large_string(), nullable=True, encoding="json"),
)

# Only where the source has outlines, and then for every annotation that has one. They are twice as large as
# everything else and rarely read, hence a table of their own.
POLYGONS = _table(
    "polygons",
    _field("ann_id", pa.int64()),
    _field("polygons", pa.large_list(pa.large_list(pa.float64())), unit="px", order="x, y, x, y, ..."),
)

# Only for panoptic sources.
PANOPTIC = _table(
    "panoptic",
    _field("image_id", pa.int64()),
    _field("file_name", pa.string(), encoding="posix path relative to the root of the image source"),
    _field("run_lengths", pa.large_list(pa.uint32()), unit="px", order="column-major"),
    _field("run_ids", pa.large_list(pa.int32()), encoding="source_id of an annotation; 0 is void"),
)

FINDINGS = _table(
    "findings",
    _field("source_key", pa.string()),
    _field("reason", pa.string()),
    _field("message", pa.string()),
    _field("image_dropped", pa.bool_()),
)

# Sorted ids shrink 25-fold as deltas; run-lengths are nearly all different, so a dictionary only costs time.
TABLES = {
    "images": IMAGES,
    "annotations": ANNOTATIONS,
    "findings": FINDINGS,
    "polygons": POLYGONS,
    "panoptic": PANOPTIC,
}
"""The tables a split may have."""

_DELTAS = ("ann_id", "image_id", "parent_id", "ann_offset", "source_id", "source_row")
_NO_DICTIONARY = (
    *_DELTAS,
    *("rle", "sha256", "message", "run_lengths"),
    *("is_crowd", "is_ignore", "is_thing", "image_dropped"),
)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the settings of the layout: same rows in, same bytes out."""
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[_leaf(field) for field in schema if field.name not in _NO_DICTIONARY],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in schema.names if name in _DELTAS},
        write_page_index=True,
        write_page_checksum=True,
    )


def read_parquet(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> Any:
    """The table at ``path``, page checksums verified.

    Columns of ``schema`` that a dataset of an older minor version lacks are filled with nulls.
    """
    wanted = schema.names if columns is None else columns
    present = set(pq.read_schema(path).names)
    if present.issuperset(wanted):
        return pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
    table = pq.read_table(
        path,
        columns=[name for name in wanted if name in present],
        page_checksum_verification=True,
        partitioning=None,
    )
    for name in wanted:
        if name not in present:
            field = schema.field(name)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(wanted)


def _leaf(field: pa.Field) -> str:
    """Parquet's path of a column: lists have their values one or more levels down."""
    path, kind = str(field.name), field.type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return path
