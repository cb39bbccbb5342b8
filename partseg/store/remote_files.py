"""Files under an fsspec URL: object stores, memory, and whatever else fsspec speaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from partseg.errors import StoreError
from partseg.store.files import Found

# Enough to hide the latency of an object store; each call waits for one small answer.
CONNECTIONS = 16


class RemoteFiles:
    """See :class:`partseg.store.files.Files`. One put is atomic on object stores and in memory."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self.fs, self.root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"no file system for this store: {error}",
                where=url,
                fix="s3:// and gs:// need the extra partseg[cloud]",
            ) from error

    def read(self, name: str) -> bytes:
        """The whole file."""
        with self._explained("read"):
            return bytes(self.fs.cat_file(self._at(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the file."""
        with self._explained("written"):
            self._make_folder(name)
            self.fs.pipe_file(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists; exclusive where the file system honours ``mode="create"``."""
        with self._explained("written"):
            self._make_folder(name)
            try:
                self.fs.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def size(self, name: str) -> int | None:
        """Size in bytes, or None when there is no such file."""
        with self._explained("read"):
            self.fs.invalidate_cache()
            try:
                return int(self.fs.info(self._at(name))["size"])
            except FileNotFoundError:
                return None

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """``size`` of many files at once, over several connections."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return dict(zip(names, pool.map(self.size, names), strict=True))

    def put(self, name: str, source: Path) -> None:
        """Upload."""
        with self._explained("written"):
            self._make_folder(name)
            self.fs.put_file(str(source), self._at(name))

    def get(self, name: str, target: Path) -> None:
        """Download."""
        with self._explained("read"):
            self.fs.get_file(self._at(name), str(target))

    def children(self, name: str) -> list[str]:
        """Names of the entries directly in a folder, sorted."""
        with self._explained("read"):
            self.fs.invalidate_cache()
            try:
                listed = self.fs.ls(self._at(name), detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed)

    def walk(self, name: str) -> Iterator[Found]:
        """Every file below a folder."""
        with self._explained("read"):
            self.fs.invalidate_cache()
            found = self.fs.find(self._at(name), detail=True)
        prefix = len(self.root.rstrip("/")) + 1
        for path, info in found.items():
            yield Found(name=str(path)[prefix:], size=int(info["size"]), age=_age(info))

    def remove(self, name: str) -> None:
        """Delete the file; a missing one is fine."""
        with self._explained("removed"):
            try:
                self.fs.rm_file(self._at(name))
            except FileNotFoundError:
                return

    def local_path(self, name: str) -> Path | None:
        """Remote files have no place on this machine."""
        return None

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _make_folder(self, name: str) -> None:
        self.fs.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, StoreError):
            raise
        except Exception as error:  # every cloud library has exceptions of its own
            raise StoreError(
                f"the store cannot be {verb}: {type(error).__name__}: {error}",
                where=self.url,
                fix="check the address, the network and the credentials, or choose another with --store",
            ) from error


def _age(info: dict[str, Any]) -> float:
    """Seconds since the file was written; 0 (young, so kept) when the file system does not say."""
    for name in ("LastModified", "updated", "last_modified", "created", "mtime"):
        stamp = info.get(name)
        if isinstance(stamp, datetime):
            return time.time() - stamp.timestamp()
        if isinstance(stamp, int | float):
            return time.time() - stamp
        if isinstance(stamp, str):
            return time.time() - datetime.fromisoformat(stamp).timestamp()
    return 0.0
