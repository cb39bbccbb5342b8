"""The parquet files of a dataset while they are written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from partseg.files import sha256_file
from partseg.layout.manifest import FileEntry
from partseg.layout.schema import ANNOTATIONS, FINDINGS, IMAGES, PANOPTIC, POLYGONS, ROW_GROUP, parquet_writer


class TableFile:
    """A parquet file that fills row groups of exactly ROW_GROUP rows, however its rows arrive.

    Args:
        root: folder of the dataset.
        path: of the file, relative to it.
        schema: of the table.
    """

    def __init__(self, root: Path, path: str, schema: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._root, self._schema = root, schema
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        self._writer = parquet_writer(root / path, schema)
        self._pending: list[pa.RecordBatch] = []
        self._waiting = 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._pending.append(batch)
        self._waiting += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting >= ROW_GROUP:
            self._write(self._waiting - self._waiting % ROW_GROUP)

    def close(self) -> FileEntry:
        """Write what is left; returns the file's entry in the manifest."""
        self._write(self._waiting)
        self._writer.close()
        full = self._root / self.path
        return FileEntry(path=self.path, rows=self.rows, bytes=full.stat().st_size, sha256=sha256_file(full))

    def abandon(self) -> None:
        """Give the file up."""
        with suppress(OSError):  # the full disk that made us give up
            self._writer.close()
        self._writer.is_open = False  # or it tries again when it is collected, and says so

    def _write(self, rows: int) -> None:
        if not rows:
            return
        table = pa.Table.from_batches(self._pending, self._schema)
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=ROW_GROUP)
        rest = table.slice(rows).combine_chunks()
        self._pending = rest.to_batches()
        self._waiting -= rows


class SplitFiles:
    """The tables of one split and what has been counted in them.

    Args:
        root: folder of the dataset.
        name: of the split.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self.images = TableFile(root, f"images/{name}.parquet", IMAGES)
        self.annotations = TableFile(root, f"annotations/{name}.parquet", ANNOTATIONS)
        self.findings = TableFile(root, f"findings/{name}.parquet", FINDINGS)
        self.polygons: TableFile | None = None
        self.panoptic: TableFile | None = None
        self.records = self.dropped = self.objects = self.parts = 0

    def add_polygons(self, batch: pa.RecordBatch) -> None:
        """Add outlines; there is no table before the first one."""
        if batch.num_rows and self.polygons is None:
            self.polygons = TableFile(self._root, f"annotations/{self._name}.polygons.parquet", POLYGONS)
        if self.polygons is not None:
            self.polygons.append(batch)

    def add_panoptic(self, batch: pa.RecordBatch) -> None:
        """Add panoptic maps; there is no table before the first one."""
        if batch.num_rows and self.panoptic is None:
            self.panoptic = TableFile(self._root, f"panoptic/{self._name}.parquet", PANOPTIC)
        if self.panoptic is not None:
            self.panoptic.append(batch)

    def abandon(self) -> None:
        """Give all files up."""
        for table in (self.images, self.annotations, self.findings, self.polygons, self.panoptic):
            if table is not None:
                table.abandon()
