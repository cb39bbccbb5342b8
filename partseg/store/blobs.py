"""Files by their sha256. What is handed out was hashed first: a damaged blob is never served.

Looking whether a blob is there costs a ``stat``. Handing one out to be read costs its hash, once per
process: disks and networks lose bits without saying so, and a stage takes minutes anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from partseg.errors import MissingArtifact, StoreError
from partseg.files import sha256_file
from partseg.store.files import Files
from partseg.store.trees import Entry

STAMP = 1_000_000_000
"""Modification time of every blob on a local disk, in seconds since 1970. A blob that carries another
one was touched after it was stored and is hashed even by those who only ask whether it is there."""

TRANSFERS = 8
"""Blobs that are moved or hashed at the same time: an object store answers slowly, but all at once, and
hashing lets other threads run."""

_verified: dict[tuple[int, ...], str] = {}
"""Device, inode, size and times of change of the files this process has hashed -> sha256."""

T = TypeVar("T")
U = TypeVar("U")


def blob_name(sha256: str) -> str:
    """Where a blob lies in a store."""
    return f"blobs/{sha256[:2]}/{sha256}"


def at_once(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """``function`` of every item, in their order, several at the same time; the first error is raised."""
    waiting = list(items)
    if len(waiting) < 2:
        return [function(item) for item in waiting]
    pool = ThreadPoolExecutor(min(TRANSFERS, len(waiting)))
    try:
        return list(pool.map(function, waiting))
    finally:
        pool.shutdown(cancel_futures=True)


class Blobs:
    """The blobs of a store.

    Args:
        files: the store's files.
        cache: local folder for blobs of a store that is not on this machine.
    """

    def __init__(self, files: Files, cache: Path) -> None:
        self.files, self.cache = files, cache

    def put(self, entry: Entry, source: Path) -> None:
        """Store a file that the caller gives up, unless its content is there already."""
        name = blob_name(entry.sha256)
        if self.files.size(name) == entry.size and self.seems_sound(entry.sha256) and self.files.touch(name):
            return
        self.files.put(name, source)
        local = self.files.local_path(name)
        if local is not None:
            seal(local)

    def seems_sound(self, sha256: str) -> bool:
        """Whether a blob that is there holds the right bytes, as far as its time tells."""
        local = self.files.local_path(blob_name(sha256))
        return local is None or local.stat().st_mtime == STAMP or _matches(local, sha256)

    def is_sound(self, entry: Entry) -> bool:
        """Whether the blob of a file is there and holds the right bytes; reads it all."""
        name = blob_name(entry.sha256)
        if self.files.size(name) != entry.size:
            return False
        local = self.files.local_path(name)
        if local is not None:
            return _matches(local, entry.sha256)
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self._temporary(self.cache / entry.sha256)
        try:
            self.files.get(name, path)
            return sha256_file(path) == entry.sha256
        finally:
            path.unlink(missing_ok=True)

    def local(self, entry: Entry) -> Path:
        """The blob as a local file, hashed.

        Raises:
            MissingArtifact: it is missing or damaged. A damaged one is removed, so that the artifact counts
                as missing from now on and is built again.
        """
        name = blob_name(entry.sha256)
        local = self.files.local_path(name)
        if local is None:
            return self._cached(entry)
        try:
            size = local.stat().st_size
        except FileNotFoundError:
            size = -1
        if size != entry.size:
            raise MissingArtifact(
                f"{entry.path}: its blob {entry.sha256[:12]} is missing or cut short", where=self.files.url
            )
        if not is_true(local, entry.sha256):
            raise self._damaged(entry)
        return local

    def copy_to(self, entry: Entry, path: Path) -> None:
        """A copy of the blob in a new file that shares no disk space with the store; hashed.

        Raises:
            MissingArtifact: it is missing or damaged.
        """
        local = self.files.local_path(blob_name(entry.sha256))
        try:
            if local is None:
                self.files.get(blob_name(entry.sha256), path)
            else:
                path.write_bytes(local.read_bytes())
        except FileNotFoundError:
            raise MissingArtifact(
                f"{entry.path}: its blob {entry.sha256[:12]} is missing", where=self.files.url
            ) from None
        if sha256_file(path) != entry.sha256:
            raise MissingArtifact(
                f"{entry.path}: its blob {entry.sha256[:12]} is damaged",
                where=self.files.url,
                fix="drop it there with `partseg store verify --deep --drop`; the next run builds it again",
            )

    def _cached(self, entry: Entry) -> Path:
        path = self.cache / blob_name(entry.sha256)
        if path.exists() and not is_true(path, entry.sha256):
            path.unlink(missing_ok=True)
        if not path.exists():
            self._download(entry, path)
        return path

    def _download(self, entry: Entry, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, met = self._temporary(path), set()
        try:
            for _ in range(2):  # what comes out wrong twice in the same way lies there like that
                try:
                    self.files.get(blob_name(entry.sha256), temporary)
                except FileNotFoundError:
                    raise MissingArtifact(
                        f"{entry.path}: its blob {entry.sha256[:12]} is missing", where=self.files.url
                    ) from None
                sha256 = sha256_file(temporary)
                if sha256 == entry.sha256:
                    seal(temporary)
                    temporary.replace(path)
                    note(path, sha256)
                    return
                if sha256 in met:
                    raise self._damaged(entry)
                met.add(sha256)
            raise StoreError(
                f"{entry.path}: two downloads of its blob {entry.sha256[:12]} differ",
                where=self.files.url,
                fix="check the network and try again",
            )
        finally:
            temporary.unlink(missing_ok=True)

    def _damaged(self, entry: Entry) -> MissingArtifact:
        fix = "it was removed: run again, and the artifact is built anew"
        try:
            self.files.remove(blob_name(entry.sha256))
        except StoreError:
            fix = "somebody with the right to write there must call `partseg store verify --deep --drop`"
        return MissingArtifact(
            f"{entry.path}: its blob {entry.sha256[:12]} is damaged", where=self.files.url, fix=fix
        )

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}-{path.name}")


def is_true(path: Path, sha256: str) -> bool:
    """Whether a file has this sha256; one that did not change is hashed once per process."""
    status = path.stat()
    return _verified.get(_identity(status)) == sha256 or _matches(path, sha256)


def seal(path: Path) -> None:
    """Make a file read-only and give it the time of a blob that nobody touched."""
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def _matches(path: Path, sha256: str) -> bool:
    """Hash a blob; if it is sound, stamp it, so that a look at its time is enough from now on."""
    if sha256_file(path) != sha256:
        return False
    with suppress(OSError):  # somebody else's
        if path.stat().st_mtime != STAMP:
            seal(path)
    note(path, sha256)
    return True


def note(path: Path, sha256: str) -> None:
    """Take the content of a file for known, until it changes; so does a new link to it."""
    _verified[_identity(path.stat())] = sha256


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
