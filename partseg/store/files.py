"""Whole files by name under one folder or fsspec URL: the few operations the store is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file met while walking: its name, size in bytes and age in seconds since it was last written."""

    name: str
    size: int
    age: float


class Files(Protocol):
    """Names are posix paths relative to the root. A missing file raises ``FileNotFoundError``.

    Anything else that goes wrong (no permission, disk full, no network) is a
    :class:`partseg.errors.StoreError`.
    """

    url: str

    def read(self, name: str) -> bytes:
        """The whole file."""

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the file; a reader sees the old bytes or the new ones, never a mixture."""

    def create(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists; of several callers at once exactly one gets True."""

    def exclusive(self) -> bool:
        """Whether ``create`` keeps that promise here; the file system is tried once."""

    def size(self, name: str) -> int | None:
        """Size in bytes, or None when there is no such file."""

    def age(self, name: str) -> float | None:
        """Seconds since the file was last written or touched, or None when there is no such file."""

    def touch(self, name: str) -> bool:
        """Make the file young, so that gc leaves it alone; False when it is not there or cannot be done."""

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """``size`` of many files at once."""

    def put(self, name: str, source: Path) -> None:
        """Store the content of a local file that the caller gives up: it may be linked, not copied."""

    def get(self, name: str, target: Path) -> None:
        """Fetch into a new local file."""

    def children(self, name: str) -> list[str]:
        """Names of the entries directly in a folder, sorted; empty when there is no such folder."""

    def walk(self, name: str) -> Iterator[Found]:
        """Every file below a folder, in no particular order."""

    def remove(self, name: str) -> None:
        """Delete the file; a missing one is fine."""

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine, or None for remote stores."""


def open_files(url: str) -> Files:
    """Files under ``url``: a path, ``file://...`` or any URL fsspec knows."""
    if "://" not in url or url.startswith("file://"):
        from partseg.store.local_files import LocalFiles

        return LocalFiles(Path(url.removeprefix("file://")))
    from partseg.store.remote_files import RemoteFiles

    return RemoteFiles(url)
