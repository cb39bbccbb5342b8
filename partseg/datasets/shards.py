"""Shards: what has been converted so far, on disk, so that a killed conversion goes on where it stopped.

A shard is a run of consecutive records of one split, encoded as Arrow tables in one file. It exists whole or
not at all, and depends on the raw files and the options alone: whoever makes it, here, in another process or
on another machine that sees the folder, makes the same bytes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from partseg.datasets.catalogue import source_module, source_options
from partseg.datasets.source import Raw
from partseg.errors import LayoutError
from partseg.layout import Chunk, encode
from partseg.resume import read_sealed, write_sealed

_TABLES = [field.name for field in fields(Chunk) if field.name not in ("records", "dropped")]


@dataclass(frozen=True, slots=True)
class Shard:
    """One piece of a conversion; small, and the same on every machine.

    Attributes:
        number: place of the shard in the dataset.
        keys: the records, in their order.
    """

    source: str
    options: Mapping[str, Any]
    root: Path
    work: Path
    split: str
    number: int
    keys: Sequence[str]

    @property
    def path(self) -> Path:
        """The shard's file."""
        return self.work / "shards" / f"{self.number:06d}.arrow"


Mapper = Callable[[Callable[[Shard], Path], Sequence[Shard]], Generator[Path, None, None]]
"""Applies a function to every shard, wherever it likes, and gives the results in the shards' order.

It is a generator: closed before its end, it stops whoever still works for it.
"""


def make(shard: Shard) -> Path:
    """Read and encode the records of a shard, unless its file is there already and whole.

    Raises:
        SourceError: a raw file is missing or damaged.
        LayoutError: a record breaks a rule of the layout, or the file cannot be written.
    """
    if read_sealed(shard.path) is None:
        options = source_options(shard.source, shard.options)
        raw = Raw(shard.root, shard.work / "scratch")
        with _without_cycle_collector():
            chunk = encode(source_module(shard.source).read(raw, shard.split, shard.keys, options))
        if chunk.records != len(shard.keys):
            raise LayoutError(
                f"{len(shard.keys)} records went in, {chunk.records} came out",
                where=f"{shard.source}, split {shard.split}",
            )
        _write(shard.path, chunk)
    return shard.path


@contextmanager
def _without_cycle_collector() -> Iterator[None]:
    """Records are trees: searching them for cycles again and again takes a tenth of the time of a shard."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(path: Path, chunk: Chunk) -> None:
    """The tables one after the other, the counts in the metadata of each; then the digest of it all."""
    counts = {"records": str(chunk.records), "dropped": str(chunk.dropped)}
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    for name in _TABLES:
        batch = getattr(chunk, name)
        schema = batch.schema.with_metadata({**(batch.schema.metadata or {}), **counts})
        with pa.ipc.new_stream(sink, schema, options=options) as writer:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    write_sealed(path, sink.getvalue())


def read(path: Path) -> Chunk:
    """The content of a shard's file.

    Raises:
        LayoutError: the file is missing or damaged.
    """
    content = read_sealed(path)
    if content is None:
        raise LayoutError(
            "a working file of the conversion is missing or damaged",
            where=path,
            fix="run the same command again, which makes it again; workers on other machines must share "
            "this folder",
        )
    tables = {}
    stream = pa.BufferReader(content)
    for name in _TABLES:
        with pa.ipc.open_stream(stream) as batches:
            (batch,) = batches  # to the end: the next stream begins there
        metadata = dict(batch.schema.metadata)
        records, dropped = (int(metadata.pop(key)) for key in (b"records", b"dropped"))
        tables[name] = batch.replace_schema_metadata(metadata)
    return Chunk(**tables, records=records, dropped=dropped)
