"""Files under an fsspec URL: object stores, memory, and whatever else fsspec speaks."""

from __future__ import annotations

import errno
import logging
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from partseg.errors import StoreError
from partseg.store.files import Found

log = logging.getLogger(__name__)

# Enough to hide the latency of an object store; each call waits for one small answer.
CONNECTIONS = 16
WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "memory"}
"""Protocols of stores that know names only. Making a folder there would make the bucket, which is for its
owner to do: a misspelt one is an error."""
YOUNG = 3600.0
"""Seconds for which a file need not be touched again; gc's grace is days."""


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
        protocol = self.fs.protocol
        self._exclusive: bool | None = None
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)

    def read(self, name: str) -> bytes:
        """The whole file."""
        with self._explained("read"):
            return bytes(self.fs.cat_file(self._at(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the file."""
        with self._written():
            self._make_folder(name)
            self.fs.pipe_file(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists: on S3 a put with ``If-None-Match: *``.

        Of a server that does not know that (see :meth:`exclusive`) several callers at once may get True; the
        file then is the last one's.
        """
        if not self.exclusive():
            if self.size(name) is not None:
                return False
            self.write(name, data)
            return True
        return self._create(name, data)

    def exclusive(self) -> bool:
        """Whether a second ``create`` of the same name is refused, tried once with a file of its own."""
        if self._exclusive is None:
            name = f"claims/.probe-{uuid.uuid4().hex}"
            try:
                self.write(name, b"{}")
                self._exclusive = not self._create(name, b"{}")
            except StoreError:  # "not implemented"; if it is something else, the next write says so
                self._exclusive = False
            finally:
                self.remove(name)
            if not self._exclusive:
                log.warning("%s cannot create a file exclusively: taking a lease takes longer", self.url)
        return self._exclusive

    def _create(self, name: str, data: bytes) -> bool:
        with self._written():
            self._make_folder(name)
            try:
                self.fs.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno == errno.EBUSY:  # S3's 409: another put of the same name is under way
                    return False
                raise
        return True

    def size(self, name: str) -> int | None:
        """Size in bytes, or None when there is no such file."""
        info = self._info(name)
        return None if info is None else int(info["size"])

    def age(self, name: str) -> float | None:
        """Seconds since the file was written, or None when there is no such file."""
        info = self._info(name)
        return None if info is None else _age(info)

    def touch(self, name: str) -> bool:
        """Copy the file onto itself, on the server, unless it is young."""
        age = self.age(name)
        if age is None or age < YOUNG:
            return age is not None
        # S3 refuses a copy onto itself that changes nothing.
        changed = {"MetadataDirective": "REPLACE"} if "s3" in self._protocols else {}
        try:
            self.fs.cp_file(self._at(name), self._at(name), **changed)
        except Exception:  # every cloud library has exceptions of its own; the caller puts it again
            return False
        return True

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """``size`` of many files at once, over several connections."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return dict(zip(names, pool.map(self.size, names), strict=True))

    def put(self, name: str, source: Path) -> None:
        """Upload."""
        with self._written():
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
            try:
                found = self.fs.find(self._at(name), detail=True)
            except FileNotFoundError:
                return
        prefix = len(self.root.rstrip("/")) + 1
        for path, info in found.items():
            yield Found(name=str(path)[prefix:], size=int(info["size"]), age=_age(info))

    def remove(self, name: str) -> None:
        """Delete the file; a missing one is fine."""
        with self._explained("removed"), suppress(FileNotFoundError):
            self.fs.rm_file(self._at(name))

    def local_path(self, name: str) -> Path | None:
        """Remote files have no place on this machine."""
        return None

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        with self._explained("read"):
            self.fs.invalidate_cache()
            try:
                found: dict[str, Any] = self.fs.info(self._at(name))
            except FileNotFoundError:
                return None
        return None if found.get("type") == "directory" else found

    def _make_folder(self, name: str) -> None:
        if not self._protocols & WITHOUT_FOLDERS:
            self.fs.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        with self._explained("written"):
            try:
                yield
            except FileNotFoundError as error:
                raise StoreError(
                    f"the store cannot be written: {error}",
                    where=self.url,
                    fix="make the bucket, or choose another store with --store or PARTSEG_STORE",
                ) from error

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
