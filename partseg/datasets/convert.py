"""Raw data to the common layout, shard by shard, on as many processes as wanted.

What comes out does not depend on the number of processes, and memory is bounded by the shards in flight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from partseg.datasets.catalogue import source_module, source_options
from partseg.datasets.facts import data_manifest
from partseg.datasets.shards import Mapper, Shard, make, read
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import FORMAT_VERSION, DatasetWriter
from partseg.layout.files import check_free
from partseg.processes import in_processes
from partseg.progress import Progress, Silent
from partseg.resume import code_digest, working_folder

SHARD_RECORDS = 128  # large enough to hide the hand-over, small enough for even progress


def convert(
    source: str,
    root: Path,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    workers: int = 0,
    work: Path | None = None,
    mapper: Mapper | None = None,
    shard_records: int = SHARD_RECORDS,
    report: Progress | None = None,
) -> dict[str, int]:
    """Convert the raw data under ``root`` into a new dataset at ``out``.

    The same raw files and options give the same bytes, whatever the workers, the mapper and the shards. A
    conversion that was stopped goes on where it was.

    Args:
        source: name of a module of :mod:`partseg.datasets`.
        root: the raw folder.
        out: folder of the dataset; must not exist, or be empty.
        options: settings of that module.
        workers: processes; 0 reads in this one.
        work: folder for finished shards; by default a hidden one beside ``out``. It is removed at the end.
        mapper: runs the shards somewhere else than in ``workers`` processes of this machine; whoever runs
            them must see the same ``root`` and ``work``.
        shard_records: records per shard. Another number than that of a stopped conversion starts anew.
        report: told after every shard.

    Returns:
        Counts: source_records, images, dropped, findings, objects, parts.

    Raises:
        SourceError: raw data is missing or damaged, an option is wrong, or no image of a split is usable.
        LayoutError: ``out`` is taken, or the disk is full.
    """
    root, out, report = Path(root).absolute(), Path(out).absolute(), report or Silent()
    module, checked = source_module(source), source_options(source, options or {})
    check_free(out)
    plan = _plan(source, root, checked, shard_records)
    with working_folder(work or out.parent / f".{out.name}.converting", plan) as folder:
        (folder / "scratch").mkdir(exist_ok=True)
        raw = Raw(root, folder / "scratch")
        splits = module.splits(raw, checked)
        shards = _shards(source, raw, checked, splits, shard_records)
        facts = data_manifest(source)
        writer = DatasetWriter(
            out,
            name=source,
            categories=module.categories(raw, checked),
            converter={"name": source, "settings": checked.model_dump(mode="json")},
            image_source=source,
            sources=[{**item.model_dump(), "licence": facts.licence} for item in facts.sources],
            expected={"counts": facts.expected, "source": facts.expected_source} if facts.expected else None,
            source_records={split: len(keys) for split, keys in splits.items()},
            details=module.details(raw, checked),
        )
        made = mapper(make, shards) if mapper else in_processes(make, shards, workers)
        with writer, closing(made):
            return _assemble(writer, splits, shards, made, report)


def _plan(source: str, root: Path, options: BaseModel, shard_records: int) -> dict[str, Any]:
    """What finished shards depend on: they are used again only if all of this is as it was."""
    module = source_module(source)
    listed = hashlib.sha256()
    for name in module.files(root, options):
        try:
            status = (root / name).stat()
        except OSError as error:
            raise SourceError(f"cannot be read ({error.strerror})", where=root / name) from error
        listed.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return {
        "source": source,
        "options": options.model_dump(mode="json"),
        "root": str(root),
        "files": listed.hexdigest(),
        "shard_records": shard_records,
        "code": [*code_digest("datasets", "layout"), FORMAT_VERSION],
    }


def _shards(
    source: str, raw: Raw, options: BaseModel, splits: Mapping[str, Sequence[str]], size: int
) -> list[Shard]:
    settings, work = options.model_dump(mode="json"), raw.scratch.parent
    pieces = [
        (split, keys[start : start + size])
        for split, keys in splits.items()
        for start in range(0, len(keys), size)
    ]
    return [
        Shard(source, settings, raw.root, work, split, number, keys)
        for number, (split, keys) in enumerate(pieces)
    ]


def _assemble(
    writer: DatasetWriter,
    splits: Mapping[str, Sequence[str]],
    shards: Sequence[Shard],
    made: Iterable[Path],
    report: Progress,
) -> dict[str, int]:
    """The shards in their order, as they are finished."""
    counts = dict.fromkeys(("source_records", "images", "dropped", "findings"), 0)
    total = sum(len(keys) for keys in splits.values())
    usable, reasons = dict.fromkeys(splits, 0), dict[str, str]()
    for shard, path in zip(shards, made, strict=True):
        chunk = read(path)
        writer.write_batch(shard.split, chunk)
        usable[shard.split] += chunk.images.num_rows
        if chunk.findings.num_rows:
            reasons.setdefault(shard.split, chunk.findings["message"][0].as_py())
        counts["source_records"] += chunk.records
        counts["images"] += chunk.images.num_rows
        counts["dropped"] += chunk.dropped
        counts["findings"] += chunk.findings.num_rows
        report.update(counts["source_records"], total, shard.split)
    for split, images in usable.items():
        if splits[split] and not images:
            raise SourceError(
                f"no image of split {split} can be used ({reasons[split]})", where=shards[0].root
            )
    return {**counts, "objects": writer.objects, "parts": writer.parts}
