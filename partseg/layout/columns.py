"""Views of the columns of a split whose values differ in length, for reading many rows in any order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def view(column: pa.Array) -> NDArray[Any]:
    """The numbers of a column without nulls. Arrow's own ``to_numpy`` imports pandas where there is one."""
    return np.from_dlpack(column)


class Lists:
    """A column of lists of numbers: all values end to end, and where each list starts.

    Args:
        column: lists without nulls.
    """

    def __init__(self, column: pa.Array) -> None:
        self._values, self._starts = view(column.values), view(column.offsets).data

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._values[self._starts[row] : self._starts[row + 1]]


class Bytes:
    """A column of bytes or text: all values end to end, and where each starts. Faster than Arrow's scalars.

    Args:
        column: binary or text, large or not, without nulls.
    """

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        large = pa.types.is_large_binary(column.type) or pa.types.is_large_string(column.type)
        number = np.int64 if large else np.int32
        self._offsets = np.frombuffer(offsets, number) if len(column) else np.zeros(1, number)
        self._starts = self._offsets.data  # one number costs a third of what it does from the array
        self._data = memoryview(data if data is not None else b"")

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._data[self._starts[row] : self._starts[row + 1]])

    def text(self, row: int) -> str:
        """A row as text."""
        return str(self._data[self._starts[row] : self._starts[row + 1]], "utf-8")

    def between(self, start: int, stop: int) -> list[bytes | None]:
        """Rows ``start`` to ``stop`` (exclusive); None for an empty one."""
        offsets = self._starts[start : stop + 1].tolist()
        first = offsets[0]
        data = bytes(self._data[first : offsets[-1]])
        return [data[a - first : b - first] or None for a, b in pairwise(offsets)]

    def filled(self, rows: Ints) -> list[int]:
        """Positions in ``rows`` of the rows that are not empty."""
        found: list[int] = np.flatnonzero(self._offsets[rows + 1] != self._offsets[rows]).tolist()
        return found


class Polygons:
    """The outlines of a split, found by annotation id.

    Args:
        table: columns ``ann_id`` (ascending) and ``polygons`` (lists of lists of float64).
    """

    def __init__(self, table: Any) -> None:
        self._ids = view(table["ann_id"].combine_chunks())
        chunks = [chunk for chunk in table["polygons"].chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, chunks)])
        self._views = [
            (
                view(chunk.offsets).data,
                view(chunk.values.offsets).data,
                view(chunk.values.values),
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
