"""The working form of a split: uncompressed Arrow files, one record batch each, memory-mapped.

They are rebuilt at will from the parquet files and keyed by those files' sha256. Opening one costs a
millisecond and no private memory, and all worker processes share its pages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from partseg.errors import LayoutError
from partseg.files import replacing_file, sha256_file
from partseg.layout.manifest import FileEntry
from partseg.layout.schema import ANNOTATIONS, IMAGES, read_parquet

_FOLDER = "layout"

# Bump when the columns below change; old files are then simply not found.
_VERSION = 2

_IMAGE_COLUMNS = [
    "image_id",
    "file_name",
    "height",
    "width",
    "source_key",
    "source_id",
    "ann_offset",
    "ann_count",
    "pos_category_ids",
    "neg_category_ids",
    "not_exhaustive_category_ids",
    "extra",
]
_ANNOTATION_COLUMNS = [
    "ann_id",
    "image_id",
    "category_id",
    "parent_id",
    "bbox",
    "area",
    "rle",
    "is_crowd",
    "is_ignore",
    "score",
    "origin",
    "attributes",
    "source_id",
    "source_row",
    "extra",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingFile:
    """One file of a cache.

    Attributes:
        size: bytes.
        idle: seconds since it was made or last opened.
        finished: it has its final name; others are being written, or were left by a writer that was killed.
    """

    path: Path
    size: int
    idle: float
    finished: bool


def working_files(cache: Path) -> list[WorkingFile]:
    """What a cache holds of datasets, in no particular order.

    Any of it may be removed at any time, except a file that is being written: it is made again when it is
    needed, and whoever has it open keeps it.
    """
    found, now = [], time.time()
    for path in (cache / _FOLDER).glob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            finished = not path.name.startswith(".")
            idle = now - status.st_mtime
            found.append(WorkingFile(path=path, size=status.st_size, idle=idle, finished=finished))
    return found


def open_images(folder: Path, entry: FileEntry, cache: Path) -> pa.RecordBatch:
    """The images of a split as one memory-mapped batch; a missing ``source_id`` is -1, ``extra`` empty."""
    return _open(folder, entry, cache, "images", _build_images).get_batch(0)


def open_annotations(folder: Path, entry: FileEntry, cache: Path) -> pa.RecordBatch:
    """The annotations of a split as one memory-mapped batch without nulls.

    ``parent_row`` is the parent's row within the image, -1 for an object; a missing ``rle`` is empty, a
    missing ``score`` nan, a missing ``source_id`` or ``source_row`` -1, a missing ``extra`` empty.
    """
    return _open(folder, entry, cache, "annotations", _build_annotations).get_batch(0)


def open_polygons(folder: Path, entry: FileEntry, cache: Path) -> Any:
    """The outlines of a split as a memory-mapped ``pyarrow.Table`` with chunks of ``ROW_GROUP`` rows."""
    return _open(folder, entry, cache, "polygons", _row_groups).read_all()


def open_panoptic(folder: Path, entry: FileEntry, cache: Path) -> Any:
    """The panoptic maps of a split as a memory-mapped ``pyarrow.Table`` with chunks of ``ROW_GROUP`` rows."""
    return _open(folder, entry, cache, "panoptic", _row_groups).read_all()


def _open(
    folder: Path, entry: FileEntry, cache: Path, kind: str, build: Callable[[Path], Iterator[pa.RecordBatch]]
) -> pa.ipc.RecordBatchFileReader:
    path = cache / _FOLDER / f"{entry.sha256}.{kind}.v{_VERSION}.arrow"
    if path.exists():
        with suppress(OSError):
            os.utime(path)  # see WorkingFile.idle
        try:
            return _map(path)
        except (pa.ArrowInvalid, OSError):  # damaged on disk: it is only a cache
            path.unlink(missing_ok=True)
    source = folder / entry.path
    if not source.is_file():
        raise LayoutError("a file of the dataset is missing", where=source, fix="fetch or convert it again")
    if sha256_file(source) != entry.sha256:
        raise LayoutError(
            "the file is not the one the manifest describes (sha256 differs)",
            where=source,
            fix="fetch or convert the dataset again",
        )
    batches = build(source)
    first = next(batches)
    try:
        # Two processes may both get here; they write the same bytes and the last rename wins.
        with (
            replacing_file(path) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, first.schema) as writer,
        ):
            for batch in chain([first], batches):
                writer.write_batch(batch)
    except OSError as error:
        raise LayoutError(
            f"the cache cannot be written ({error})",
            where=path,
            fix="set PARTSEG_CACHE to a folder with room",
        ) from error
    return _map(path)


def _map(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _row_groups(path: Path) -> Iterator[pa.RecordBatch]:
    """The table as it lies in the file, one row group in memory at a time."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            yield _one_batch(file.read_row_group(group))


def _build_images(path: Path) -> Iterator[pa.RecordBatch]:
    table = read_parquet(path, IMAGES, _IMAGE_COLUMNS)
    for name, value in (("source_id", -1), ("extra", "")):
        table = _filled(table, name, value)
    yield _one_batch(table)


def _build_annotations(path: Path) -> Iterator[pa.RecordBatch]:
    table = read_parquet(path, ANNOTATIONS, _ANNOTATION_COLUMNS)
    parents = pa.array(_parent_rows(table))
    columns = {
        "ann_id": table["ann_id"],
        "category_id": table["category_id"],
        "parent_row": parents,
        "bbox": table["bbox"],
        "area": table["area"],
        "rle": pc.fill_null(table["rle"], b""),
        "is_crowd": table["is_crowd"].cast(pa.uint8()),
        "is_ignore": table["is_ignore"].cast(pa.uint8()),
        "score": pc.fill_null(table["score"], float("nan")),
        "origin": table["origin"].unify_dictionaries(),
        "attributes": table["attributes"],
        "source_id": pc.fill_null(table["source_id"], -1),
        "source_row": pc.fill_null(table["source_row"], -1),
        "extra": pc.fill_null(table["extra"], ""),
    }
    yield _one_batch(pa.table(columns))


def _filled(table: Any, name: str, value: Any) -> Any:
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pc.fill_null(table[name], value))


def _parent_rows(table: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    ann_ids, image_ids = table["ann_id"].to_numpy(), table["image_id"].to_numpy()
    parent_ids = pc.fill_null(table["parent_id"], -1).to_numpy()
    first = np.searchsorted(image_ids, image_ids)
    rows = np.searchsorted(ann_ids, parent_ids) - first
    return np.where(parent_ids < 0, -1, rows).astype(np.int64)


def _one_batch(table: Any) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.record_batch([pa.array([], field.type) for field in table.schema], schema=table.schema)
    (batch,) = batches
    return batch
