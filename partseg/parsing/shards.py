"""A parser over many images: in shards, which survive a kill, and in as many processes as wanted.

A shard is a run of consecutive images. Its records are a file, whole or not there at all. What is found in an
image does not depend on the images beside it, so neither the shards nor the processes change any record.

Nothing here imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import orjson

from partseg.errors import LayoutError
from partseg.layout import AnnotationRow, Finding, ImageRow, Record, Split
from partseg.processes import Place, in_processes
from partseg.progress import Progress, Silent
from partseg.resume import code_digest, read_sealed, working_folder, write_sealed

SHARD = 64
"""Images per shard, at most: what a killed process has to do again."""
SHARDS = 32
"""Fewer images than fill that many shards make smaller ones, so that processes can share them."""
BATCH = 16
"""Images the parser is given at once."""


class ParsesImages(Protocol):
    """What is needed of :class:`partseg.parsing.parser.Parser`."""

    def records(self, images: Split, rows: Sequence[int]) -> list[Record]:
        """One record per row, in their order; each a pure function of its image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenParser:
    """A parser with its models loaded, and the images it is for."""

    parser: ParsesImages
    images: Split


Open = Callable[[int], OpenParser]
"""Loads the models for one of several processes: the number of it, from 0, chooses among GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some consecutive images.

    Attributes:
        path: the file of their records.
        rows: of the split.
    """

    path: Path
    rows: range


@contextmanager
def parsing_folder(work: Path, made_from: Any, images: int, *, size: int | None = None) -> Iterator[Shards]:
    """The shards of a split of so many images; those of an earlier, killed run are still there.

    Args:
        work: folder for the shards. It stays, for whoever is killed after this and before the result is safe.
        made_from: all that the records depend on beside the code, plain data. Shards of anything else go.
        images: how many the split has.
        size: images per shard; by default a number that depends on ``images`` alone, so that shards outlive a
            change of processes.

    Raises:
        LayoutError: another process parses with the same folder, or the disk is full.
    """
    size = size or max(1, min(SHARD, images // SHARDS))
    code = code_digest("layout", "models", "parsing")
    plan = {"made_from": made_from, "code": code, "images": images, "size": size}
    with working_folder(work, plan, doing="parsing", kept=True) as folder:
        yield Shards(folder, images, size)


class Shards:
    """The shards of a split; see :func:`parsing_folder`."""

    def __init__(self, folder: Path, images: int, size: int) -> None:
        self.images = images
        self.shards = [
            Shard(path=folder / f"{start:09d}.jsonl", rows=range(start, min(start + size, images)))
            for start in range(0, images, size)
        ]

    def make(
        self,
        open_: Open,
        *,
        processes: int = 0,
        batch: int = BATCH,
        parts: Collection[int] = (),
        report: Progress | None = None,
    ) -> int:
        """Parse the images of all shards whose file is missing or damaged.

        Args:
            open_: called once by every process that has something to do; can be pickled.
            processes: of this machine, to share the shards; with 0, or for one shard, this process does it.
            batch: images the parser is given at once.
            parts: categories that are parts, which the progress counts.
            report: told how far it is.

        Returns:
            How many shards were made.

        Raises:
            PartsegError: a process died; and what the parser raises.
        """
        told = _Told(report=report or Silent(), images=self.images)
        todo = []
        for shard in self.shards:
            records = _read(shard)
            if records is None:
                todo.append(shard)
            else:
                told.before += len(records)
                told.parts += _count(records, parts)
        if told.before:
            told.report.log(f"{told.before} of {self.images} images are parsed already")
        work = partial(_make, batch=batch, parts=frozenset(parts))
        made = in_processes(work, todo, processes, start=partial(_start, open_), heard=told.heard)
        try:
            with closing(made):
                for found in made:
                    told.parts += found
        finally:
            _HERE.clear()
        told.heard(self.images - told.before)
        return len(todo)

    def records(self) -> Iterator[Record]:
        """All records in the order of the images; one shard at a time is in memory.

        Raises:
            LayoutError: a shard is missing or damaged.
        """
        for shard in self.shards:
            records = _read(shard)
            if records is None:
                raise LayoutError(
                    "a working file of the parser is missing or damaged",
                    where=shard.path,
                    fix="run the same command again, which makes it again",
                )
            yield from records


@dataclass(kw_only=True)
class _Told:
    """How far it is: the images of ``before`` are of an earlier run."""

    report: Progress
    images: int
    before: int = 0
    parts: int = 0
    begin: float = field(default_factory=time.monotonic)

    def heard(self, done: int) -> None:
        rate = done / max(time.monotonic() - self.begin, 1e-3)
        message = f"images parsed, {self.parts} parts, {rate:.1f} images/s"
        self.report.update(self.before + done, self.images, message)


class _Worker:
    """What a process needs for its shards; the models are loaded with the first of them."""

    def __init__(self, open_: Open, place: Place) -> None:
        self._open, self.place = open_, place

    @cached_property
    def opened(self) -> OpenParser:
        return self._open(self.place.number)


_HERE: list[_Worker] = []
"""The worker of this process, while it is one."""


def _start(open_: Open, place: Place) -> None:
    _HERE[:] = [_Worker(open_, place)]


def _make(shard: Shard, *, batch: int, parts: Collection[int]) -> int:
    """Write a shard; returns the parts in it."""
    (worker,) = _HERE
    opened = worker.opened
    records: list[Record] = []
    for start in range(0, len(shard.rows), batch):
        rows = shard.rows[start : start + batch]
        records += opened.parser.records(opened.images, rows)
        worker.place.add(len(rows))
    if len(records) != len(shard.rows):
        raise LayoutError(f"{len(shard.rows)} images went in, {len(records)} records came out")
    write_sealed(shard.path, pack(records))
    return _count(records, parts)


def _count(records: Iterable[Record], parts: Collection[int]) -> int:
    return sum(row.category_id in parts for record in records for row in record.annotations)


def _read(shard: Shard) -> list[Record] | None:
    content = read_sealed(shard.path)
    return None if content is None else unpack(bytes(content))


def pack(records: Iterable[Record]) -> bytes:
    """Records without outlines and panoptic maps as JSON, a line each; no number changes on the way."""
    return b"".join(
        orjson.dumps(record, default=_text, option=orjson.OPT_APPEND_NEWLINE) for record in records
    )


def unpack(lines: bytes) -> list[Record]:
    """The records of :func:`pack`."""
    return [_record(orjson.loads(line)) for line in lines.splitlines()]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # one character per byte
    raise TypeError(f"a record of the parser holds {type(value).__name__}")


def _record(plain: Mapping[str, Any]) -> Record:
    image = plain["image"]
    return Record(
        image=None if image is None else ImageRow(**_fields(image)),
        annotations=tuple(AnnotationRow(**_fields(row)) for row in plain["annotations"]),
        findings=tuple(Finding(**finding) for finding in plain["findings"]),
    )


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row as they were: JSON knows neither bytes nor tuples."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found[name] = tuple(value) if isinstance(value, list) else value
    for name in ("rle", "sha256"):
        if found.get(name) is not None:
            found[name] = found[name].encode("latin-1")
    return found
