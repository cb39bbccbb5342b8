"""A directory as a value: the sorted list of its files, whose sha256 is the content digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from partseg.errors import StoreError
from partseg.files import sha256_file


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """One file of a tree: posix path in the directory, size in bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The files of a directory, sorted by path. Empty folders, modes and times are not content."""

    entries: tuple[Entry, ...]

    @property
    def data(self) -> bytes:
        """Canonical JSON: the same files always give the same bytes."""
        return canonical_json([asdict(entry) for entry in self.entries])

    @property
    def digest(self) -> str:
        """sha256 of :attr:`data`: the content digest."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)


def canonical_json(value: object) -> bytes:
    """JSON with sorted names and no spaces; raises ``ValueError`` for nan and infinity."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def tree_of(directory: Path) -> Tree:
    """Hash every file below ``directory``.

    Raises:
        StoreError: there is something else than plain files and folders.
    """
    entries = [
        Entry(path=path.relative_to(directory).as_posix(), size=path.stat().st_size, sha256=sha256_file(path))
        for path in _files(directory)
    ]
    return Tree(entries=tuple(sorted(entries)))


def _files(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        for name in [*files, *folders]:
            path = Path(folder) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StoreError("an artifact holds plain files only, no links or devices", where=path)
        yield from (Path(folder) / name for name in files)


def parse_tree(data: bytes, digest: str) -> Tree:
    """The tree stored under ``digest``.

    Raises:
        StoreError: the bytes are not those that were stored, or a path leaves the directory.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise StoreError("the list of files is damaged", where=f"trees/{digest}.json")
    tree = Tree(entries=tuple(Entry(**entry) for entry in json.loads(data)))
    for entry in tree.entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"a path leaves the artifact: {entry.path}", where=f"trees/{digest}.json")
    return tree
