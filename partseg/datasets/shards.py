"""Shards: what has been converted so far, on disk, so that a killed conversion goes on where it stopped.

A shard is a run of consecutive records of one split, encoded as Arrow tables in one file. It exists whole or
not at all, and depends on the raw files and the options alone: whoever makes it, here, in another process or
on another machine that sees the folder, makes the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from partseg.datasets.catalogue import source_module, source_options
from partseg.datasets.source import Raw
from partseg.errors import LayoutError
from partseg.files import replacing_file, write_file
from partseg.layout import Chunk, encode

_TABLES = [field.name for field in fields(Chunk) if field.name not in ("records", "dropped")]
_DIGEST_BYTES = hashlib.sha256().digest_size
_PLAN = "plan.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


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
    if _content(shard.path) is None:
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
    content = sink.getvalue()
    try:
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
    except OSError as error:
        raise _cannot_write(error, path.parent) from error


def _content(path: Path) -> memoryview | None:
    """The tables' bytes; None if the file is missing or not what was written."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    content, digest = whole[:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def read(path: Path) -> Chunk:
    """The content of a shard's file.

    Raises:
        LayoutError: the file is missing or damaged.
    """
    content = _content(path)
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


def _cannot_write(error: OSError, folder: Path) -> LayoutError:
    """What to say when the disk is full, or a folder cannot be written to."""
    return LayoutError(
        f"the conversion cannot write here ({os.strerror(error.errno) if error.errno else error})",
        where=folder,
        fix="free some space, or name another folder, and run the same command again: it goes on where it "
        "stopped",
    )


@contextmanager
def working_folder(work: Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of a conversion's shards: kept when it fails, emptied if it belongs to another plan.

    Raises:
        LayoutError: another process is converting with the same folder, or the disk is full.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(error, work) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LayoutError(
                "another process is converting into the same folder", where=work, fix="wait for it"
            ) from None
        content = orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)
        known = work / _PLAN
        if not known.is_file() or known.read_bytes() != content:
            _empty(work)
            write_file(known, content)
        (work / "scratch").mkdir(exist_ok=True)
        yield work
        _empty(work)
        work.rmdir()
    except OSError as error:
        if error.errno in _FULL:
            raise _cannot_write(error, work.parent) from error
        raise
    finally:
        os.close(lock)


def _empty(work: Path) -> None:
    """The plan goes first: what a killed process leaves of the rest then belongs to none."""
    (work / _PLAN).unlink(missing_ok=True)
    for left in work.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
