"""A split as plain arrays, read from its parquet files: a cache cannot be built of unchecked ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from partseg.layout.bulk import Masks, decode_masks
from partseg.layout.runs import Ints, Mask
from partseg.layout.schema import ANNOTATIONS, IMAGES, read_parquet
from partseg.layout.split import Split

_IMAGE_COLUMNS = [name for name in IMAGES.names if name not in ("licence", "extra")]
_ANNOTATION_COLUMNS = [name for name in ANNOTATIONS.names if name not in ("rle", "attributes", "extra")]
_BATCH_ROWS = 4096
_PIECE_BYTES = 1 << 20  # run-lengths decoded at once: some 100 MB of working arrays


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The I images and N annotations of a split without their masks.

    Attributes:
        images: the image table.
        annotations: the annotation table without masks.
        image_ids: int64 [I].
        heights: int64 [I], pixels; so is ``widths``.
        offsets: int64 [I], first annotation of an image.
        counts: int64 [I], how many annotations it has.
        ann_ids: int64 [N].
        ann_images: int64 [N], image ids.
        category_ids: int64 [N].
        parent_ids: int64 [N], -1 for none.
        boxes: float64 [N, 4], x, y, w, h in pixels.
        areas: float64 [N], pixels.
    """

    split: Split
    images: Any
    annotations: Any
    image_ids: Ints
    heights: Ints
    widths: Ints
    offsets: Ints
    counts: Ints
    ann_ids: Ints
    ann_images: Ints
    category_ids: Ints
    parent_ids: Ints
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The split."""
        return self.split.name

    def image_rows(self) -> Ints:
        """Row of the image of every annotation [N]; the row ranges must be sound."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def parent_rows(self) -> Ints:
        """Row of the parent of every annotation [N], -1 for none; ids and parents must be sound."""
        rows = np.searchsorted(self.ann_ids, self.parent_ids)
        return np.where(self.parent_ids < 0, -1, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole images of a split with the K masks of their annotations.

    Attributes:
        rows: of the annotations.
        present: bool [K], whether the annotation has a mask.
        rles: the masks, compressed; ``pyarrow.LargeBinaryArray`` [K].
        masks: the same, decoded.
    """

    rows: slice
    present: Mask
    rles: Any
    masks: Masks


def read_columns(split: Split) -> Columns:
    """All of a split but its masks."""
    images = read_parquet(split.folder / split.entry.images.path, IMAGES, _IMAGE_COLUMNS)
    annotations = read_parquet(split.folder / split.entry.annotations.path, ANNOTATIONS, _ANNOTATION_COLUMNS)
    boxes = annotations["bbox"].combine_chunks().flatten().to_numpy(zero_copy_only=False)

    def ints(table: Any, name: str) -> Ints:
        return np.asarray(table[name].to_numpy().astype(np.int64))

    return Columns(
        split=split,
        images=images,
        annotations=annotations,
        image_ids=ints(images, "image_id"),
        heights=ints(images, "height"),
        widths=ints(images, "width"),
        offsets=ints(images, "ann_offset"),
        counts=ints(images, "ann_count"),
        ann_ids=ints(annotations, "ann_id"),
        ann_images=ints(annotations, "image_id"),
        category_ids=ints(annotations, "category_id"),
        parent_ids=np.asarray(pc.fill_null(annotations["parent_id"], -1).to_numpy()),
        boxes=boxes.reshape(-1, 4),
        areas=annotations["area"].to_numpy(),
    )


def pieces(columns: Columns) -> Iterator[Piece]:
    """The masks of a split, some images at a time; the row ranges must be sound."""
    path = columns.split.folder / columns.split.entry.annotations.path
    ends = columns.offsets + columns.counts
    start = 0
    for rles in _by_image(path, ends):
        sizes = np.asarray(pc.fill_null(pc.binary_length(rles), 0).to_numpy()).astype(np.int64)
        last = np.unique(ends[(ends > start) & (ends <= start + len(rles))]) - start
        filled = np.cumsum(sizes)[last - 1] // _PIECE_BYTES
        cuts = last[np.append(np.diff(filled) > 0, True)]
        first = 0
        for cut in cuts.tolist():
            yield _piece(slice(start + first, start + cut), rles.slice(first, cut - first))
            first = cut
        start += len(rles)


def _by_image(path: Path, ends: Ints) -> Iterator[Any]:
    """The column of masks in stretches of whole images."""
    waiting, start = pa.array([], pa.large_binary()), 0
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["rle"]):
            waiting = pa.concat_arrays([waiting, batch.column(0)])
            whole = int(ends[ends <= start + len(waiting)].max(initial=start)) - start
            if whole:
                yield waiting.slice(0, whole)
                start += whole
                waiting = waiting.slice(whole)


def _piece(rows: slice, rles: Any) -> Piece:
    present = rles.is_valid().to_numpy(zero_copy_only=False)
    filled = pa.concat_arrays([pc.fill_null(rles, b"")])
    _, offsets, data = filled.buffers()
    bounds = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return Piece(
        rows=rows, present=present, rles=rles, masks=decode_masks(content[bounds[0] : bounds[-1]], bounds)
    )
