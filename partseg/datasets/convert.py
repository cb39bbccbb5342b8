"""Raw data to the common layout, chunk by chunk, on as many processes as wanted.

What comes out does not depend on the number of processes, and memory is bounded by the chunks in flight.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from partseg.datasets import imagenet_folder, pascal_part
from partseg.datasets.facts import data_manifest
from partseg.errors import PartsegError, SourceError
from partseg.layout import Chunk, DatasetWriter, encode
from partseg.progress import Progress, Silent

SOURCES: Mapping[str, ModuleType] = {"imagenet_folder": imagenet_folder, "pascal_part": pascal_part}

_CHUNK = 64  # records; large enough to hide the hand-over, small enough for even progress


def source_module(source: str) -> ModuleType:
    """The module that reads ``source``.

    Raises:
        SourceError: there is none.
    """
    if source not in SOURCES:
        raise SourceError(f"unknown source {source!r}", fix=f"there are: {', '.join(SOURCES)}")
    return SOURCES[source]


def source_options(source: str, options: Mapping[str, Any]) -> Any:
    """The options of ``source``, checked.

    Raises:
        SourceError: an option is unknown or has the wrong type.
    """
    module = source_module(source)
    try:
        return module.Options.model_validate(dict(options))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        known = ", ".join(module.Options.model_fields)
        raise SourceError(f"options of {source}: {problems}", fix=f"known options: {known}") from error


def convert(
    source: str,
    root: Path,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> dict[str, int]:
    """Convert the raw data under ``root`` into a new dataset at ``out``.

    Args:
        source: name of a module of :mod:`partseg.datasets`.
        root: the raw folder.
        out: folder of the dataset; must not exist, or be empty.
        options: settings of that module.
        workers: processes; 0 reads in this one.
        report: told after every chunk.

    Returns:
        Counts: source_records, images, dropped, objects, parts, findings.

    Raises:
        SourceError: raw data is missing or damaged, an option is wrong, or no image of a split is usable.
        LayoutError: ``out`` is taken.
    """
    module, checked = source_module(source), source_options(source, options or {})
    report = report or Silent()
    splits: dict[str, list[str]] = module.splits(Path(root), checked)
    facts = data_manifest(source)
    total = sum(len(keys) for keys in splits.values())
    read = partial(_read_chunk, source, Path(root), checked)
    counts = dict.fromkeys(("source_records", "images", "dropped", "findings"), 0)
    writer = DatasetWriter(
        out,
        name=source,
        categories=module.categories(checked),
        converter={"name": source, "settings": checked.model_dump(mode="json")},
        image_source=source,
        sources=[{**item.model_dump(), "licence": facts.licence} for item in facts.sources],
        expected={"counts": facts.expected, "source": facts.expected_source} if facts.expected else None,
        source_records={split: len(keys) for split, keys in splits.items()},
    )
    with writer:
        for split, keys in splits.items():
            chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
            usable = 0
            for chunk in _in_order(read, chunks, workers):
                writer.write_batch(split, chunk)
                usable += chunk.images.num_rows
                counts["source_records"] += chunk.records
                counts["images"] += chunk.images.num_rows
                counts["dropped"] += chunk.dropped
                counts["findings"] += chunk.findings.num_rows
                report.update(counts["source_records"], total, split)
            if keys and not usable:
                first = chunk.findings["message"][0].as_py()
                raise SourceError(f"no image of split {split} can be used ({first})", where=root)
    counts["objects"], counts["parts"] = writer.objects, writer.parts
    return counts


def _read_chunk(source: str, root: Path, options: Any, keys: Sequence[str]) -> Chunk:
    module = source_module(source)
    return encode(module.read(root, key, options) for key in keys)


def _in_order(read: partial[Chunk], chunks: Sequence[Sequence[str]], workers: int) -> Iterator[Chunk]:
    """The chunks in their order; at most two per process are waiting."""
    if workers <= 0 or len(chunks) < 2:
        yield from map(read, chunks)
        return
    # spawn: the caller may hold threads and mapped files that a fork would copy in an unknown state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        waiting: deque[Future[Chunk]] = deque()
        todo = iter(chunks)
        try:
            for keys in todo:
                waiting.append(pool.submit(read, keys))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise PartsegError(
                "a worker process was killed", fix="lower the number of workers, or free memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
