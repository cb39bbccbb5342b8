"""Views of the columns of a split whose values differ in length, for reading many rows in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Bytes:
    """A column of bytes or text: all values end to end, and where each of them starts.

    Args:
        column: large_binary or large_string without nulls.
    """

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        self._offsets = np.frombuffer(offsets, np.int64) if len(column) else np.zeros(1, np.int64)
        self._data = memoryview(data if data is not None else b"")

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._data[self._offsets[row] : self._offsets[row + 1]])

    def filled(self, rows: Ints) -> list[int]:
        """Positions in ``rows`` of the rows that are not empty."""
        found: list[int] = np.flatnonzero(self._offsets[rows + 1] > self._offsets[rows]).tolist()
        return found


class Polygons:
    """The outlines of a split, found by annotation id.

    Args:
        table: columns ``ann_id`` (ascending) and ``polygons`` (lists of lists of float64).
    """

    def __init__(self, table: Any) -> None:
        self._ids = np.asarray(table["ann_id"].to_numpy())
        chunks = [chunk for chunk in table["polygons"].chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, chunks)])
        self._views = [
            (
                memoryview(chunk.offsets.to_numpy()),
                memoryview(chunk.values.offsets.to_numpy()),
                chunk.values.values.to_numpy(zero_copy_only=False),
            )
            for chunk in chunks
        ]

    def of(self, ann_ids: Ints) -> list[list[NDArray[np.float64]] | None]:
        """The rings of each annotation, x, y, x, y, ... in pixels; None for one without outlines."""
        if not len(self._ids):
            return [None] * len(ann_ids)
        rows = np.minimum(np.searchsorted(self._ids, ann_ids), len(self._ids) - 1)
        present = self._ids[rows] == ann_ids
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        places = zip(present.tolist(), chunks.tolist(), (rows - self._starts[chunks]).tolist(), strict=True)
        return [self._rings(chunk, row) if there else None for there, chunk, row in places]

    def _rings(self, chunk: int, row: int) -> list[NDArray[np.float64]]:
        outer, inner, values = self._views[chunk]
        return [values[inner[ring] : inner[ring + 1]] for ring in range(outer[row], outer[row + 1])]
