"""What lies in a user's raw folder: path, size and sha256 of every file that matters.

Hashing a dataset takes minutes, so a file whose size and modification time are as last time is not
read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from partseg.errors import SourceError
from partseg.files import sha256_file, write_file
from partseg.progress import Progress, Silent
from partseg.store.trees import canonical_json
from pipelines.artifact import RawFile
from pipelines.params import RawLister

# sha256 runs at 1-2 GB/s on one core with the interpreter lock released; disks saturate soon.
READERS = 4
# A file written this recently may change again within one tick of its time stamp: not remembered.
TOO_FRESH = 2.0

Known = dict[str, tuple[int, int, str]]


def list_raw(
    root: Path, files: RawLister, *, cache: Path, report: Progress | None = None
) -> tuple[RawFile, ...]:
    """The files that ``files(root)`` names, in that order, with their hashes.

    Args:
        root: the raw folder.
        files: relative posix paths of the files that matter.
        cache: folder for the hashes known so far, one file per root.
        report: told about every file hashed.

    Raises:
        SourceError: the folder, or one of the files, is missing or unreadable.
    """
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise SourceError("there is no such folder", where=root)
    report, names = report or Silent(), list(files(root))
    record = cache / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    known = _load(record)
    fresh: Known = {}
    try:
        with ThreadPoolExecutor(READERS) as pool:
            for done, (name, entry) in enumerate(
                zip(names, pool.map(lambda name: _entry(root, name, known), names), strict=True), 1
            ):
                fresh[name] = entry
                report.update(done, len(names), f"hashing {root.name}")
    finally:  # hashes found before an interruption are worth keeping
        if any(known.get(name) != entry for name, entry in fresh.items()):
            _save(record, {**known, **fresh})
    return tuple(RawFile(path=name, size=fresh[name][0], sha256=fresh[name][2]) for name in names)


def listing_digest(listing: tuple[RawFile, ...]) -> str:
    """sha256 of the listing, whatever order its files are named in."""
    rows = sorted((asdict(file) for file in listing), key=lambda row: str(row["path"]))
    return hashlib.sha256(canonical_json(rows)).hexdigest()


def raw_roots(recipe: Mapping[str, Path], given: Mapping[str, Path]) -> dict[str, Path]:
    """Raw source -> folder: what was given, before ``PARTSEG_RAW_<SOURCE>``, before the recipe's own."""
    prefix = "PARTSEG_RAW_"
    environment = {
        name.removeprefix(prefix).lower(): Path(value)
        for name, value in os.environ.items()
        if name.startswith(prefix) and value
    }
    return {**recipe, **environment, **given}


def _entry(root: Path, name: str, known: Known) -> tuple[int, int, str]:
    path = root / name
    try:
        status = path.stat()
        size, modified = status.st_size, status.st_mtime_ns
        before = known.get(name)
        if before is not None and before[:2] == (size, modified):
            return before
        return size, modified, sha256_file(path)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", where=path) from error


def _load(record: Path) -> Known:
    try:
        return {name: (row[0], row[1], row[2]) for name, row in json.loads(record.read_bytes()).items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}  # only a cache: the files are hashed again


def _save(record: Path, entries: Known) -> None:
    now = time.time_ns()
    settled = {name: row for name, row in entries.items() if now - row[1] > TOO_FRESH * 1e9}
    write_file(record, canonical_json(settled))
