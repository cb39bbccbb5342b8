"""What lies in a user's raw folder: path, size and sha256 of every file that matters.

Hashing a dataset takes minutes, so a file whose size and modification time are as last time is not
read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from partseg.datasets.facts import raw_folder
from partseg.errors import SourceError
from partseg.hashes import HashCache, Stamp
from partseg.progress import Progress, Silent
from partseg.store.trees import canonical_json
from pipelines.artifact import RawFile
from pipelines.params import RawLister

# sha256 runs at 1-2 GB/s on one core with the interpreter lock released; disks saturate soon.
READERS = 4


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
    hashes = HashCache(root, cache / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json")
    found: list[RawFile] = []
    try:
        with ThreadPoolExecutor(READERS) as pool:
            stamps = pool.map(lambda name: _stamp(hashes, name), names)
            for done, (name, (size, _, sha256)) in enumerate(zip(names, stamps, strict=True), 1):
                found.append(RawFile(path=name, size=size, sha256=sha256))
                report.update(done, len(names), f"hashing {root.name}")
    finally:  # hashes found before an interruption are worth keeping
        hashes.save()
    return tuple(found)


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


def fetched_folder(home: Path, source: str) -> Path:
    """Where ``partseg data get`` puts the raw files of a source."""
    return home / "raw" / raw_folder(source)


def fetched_roots(home: Path, sources: Iterable[str]) -> dict[str, Path]:
    """Raw source -> folder, for those that ``partseg data get`` has put below ``home``."""
    folders = {source: fetched_folder(home, source) for source in sources}
    return {source: folder for source, folder in folders.items() if folder.is_dir()}


def _stamp(hashes: HashCache, name: str) -> Stamp:
    try:
        return hashes.stamp(name)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", where=hashes.root / name) from error
