"""Large files over connections that break: resumed, checked, and in place only when they are whole.

The bytes that are there already lie in ``NAME.part``, beside ``NAME.part.json`` that says which version of
the file they belong to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from partseg.acquire.disk import need_room, room_wanted
from partseg.acquire.remote import DownloadError, Dropped, Remote, open_remote
from partseg.errors import SourceError
from partseg.files import sync, write_file
from partseg.progress import Progress, Silent

_BLOCK = 1 << 18
# Seconds; doubled after every try in a row that brought no new byte.
_WAIT = 1.0
_LONGEST_WAIT = 60.0


class ChecksumError(DownloadError):
    """A file is not the one it should be."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a file before it is read.

    Attributes:
        bytes: its size.
        sha256: its digest.
        md5: its digest of the weaker kind.
        said_by: who says so.
    """

    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    said_by: str | None = None

    def check(self, path: Path, *, size: int, sha256: str, md5: str | None, fix: str) -> None:
        """Compare a file with it.

        Raises:
            ChecksumError: it is another file.
        """
        by = f" ({self.said_by})" if self.said_by else ""
        if self.bytes is not None and size != self.bytes:
            raise ChecksumError(f"has {size} bytes, expected {self.bytes}{by}", where=path, fix=fix)
        if self.sha256 is not None and sha256 != self.sha256:
            raise ChecksumError(f"has sha256 {sha256}, expected {self.sha256}{by}", where=path, fix=fix)
        if self.sha256 is None and self.md5 is not None and md5 != self.md5:
            raise ChecksumError(f"has md5 {md5}, expected {self.md5}{by}", where=path, fix=fix)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that has arrived: where from, its size in bytes and its digest."""

    url: str
    bytes: int
    sha256: str


def download(
    urls: Sequence[str],
    target: Path,
    *,
    wanted: Wanted | None = None,
    attempts: int = 6,
    wait: float = _WAIT,
    report: Progress | None = None,
) -> Downloaded:
    """Get a file from the first address that has it.

    What an earlier call left behind is used, so a call that failed or was killed is simply made again. A file
    without a published digest is only resumed where the server says which version it is.

    Args:
        urls: where it may be, in order of preference: http(s), or anything fsspec knows.
        target: the file; its folder is made.
        wanted: size and digest, as far as they are known.
        attempts: tries in a row without a new byte, after which an address is given up.
        wait: seconds before the second of them, doubled for each further one.
        report: told in bytes.

    Raises:
        DownloadError: no address has it.
        ChecksumError: what the only address has is another file; it is not kept.
        DiskFull: it does not fit; what has arrived stays for the next call.
        SourceError: somebody else is downloading it at this moment.
    """
    wanted, report = wanted or Wanted(), report or Silent()
    failed: list[DownloadError] = []
    again = True
    target.parent.mkdir(parents=True, exist_ok=True)
    with _Part(target, md5=wanted.md5 is not None) as part:
        for url in urls:
            try:
                while True:
                    pieced = _fetch(url, part, wanted, attempts, wait, report)
                    try:
                        return _finish(url, part, wanted)
                    except ChecksumError:
                        part.forget()
                        if not (pieced and again):
                            raise
                        again = False  # the pieces may not have belonged together: once more, from the start
            except DownloadError as error:
                failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    raise DownloadError("; ".join(str(error) for error in failed) or "there is no address", where=target.name)


def _fetch(url: str, part: _Part, wanted: Wanted, attempts: int, wait: float, report: Progress) -> bool:
    """Bring the part to its full length; whether it was put together from several connections."""
    known, tries, most = wanted.sha256 is not None, 0, part.size
    while True:
        try:
            start, version = part.continue_from(url, known=known)
            if known and start == wanted.bytes:
                return True
            remote = open_remote(url, start, version)
            with remote.stream:
                _receive(url, remote, part, wanted, report)
            return remote.start > 0
        except Dropped as drop:
            # A server without ranges that breaks at the same place for ever must not count as progress.
            tries = 1 if part.size > most else tries + 1
            most = max(most, part.size)
            if tries >= attempts:
                raise DownloadError(
                    f"{drop} (tried {tries} times in a row)",
                    where=url,
                    fix="run the command again: it goes on where it stopped",
                ) from drop
            pause = min(max(wait * 2 ** (tries - 1), drop.wait or 0.0), _LONGEST_WAIT)
            report.log(f"{url}: {drop}; again in {pause:.0f} s")
            time.sleep(pause)


def _receive(url: str, remote: Remote, part: _Part, wanted: Wanted, report: Progress) -> None:
    total = remote.total
    if wanted.bytes is not None and total is not None and total != wanted.bytes:
        by = f" ({wanted.said_by})" if wanted.said_by else ""
        raise ChecksumError(f"the server has {total} bytes, expected {wanted.bytes}{by}", where=url)
    if remote.start == 0:
        part.empty()
    total = wanted.bytes if total is None else total
    part.note(url, remote.version)
    if total is not None:
        need_room(part.target.parent, total - part.size, part.target.name)
    while block := remote.read(_BLOCK):
        part.add(block)
        report.update(part.size, total or 0, part.target.name)
    if total is not None and part.size < total:
        raise Dropped(f"the connection broke after {part.size} of {total} bytes")


def _finish(url: str, part: _Part, wanted: Wanted) -> Downloaded:
    sha256, md5 = part.digests()
    wanted.check(part.target, size=part.size, sha256=sha256, md5=md5, fix="the bad file was not kept")
    part.publish()
    return Downloaded(url=url, bytes=part.size, sha256=sha256)


class _Part:
    """The bytes of a file that have arrived so far; one process at a time holds them."""

    def __init__(self, target: Path, *, md5: bool) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self._kinds = ("sha256", "md5") if md5 else ("sha256",)
        self._hash_anew()

    def __enter__(self) -> _Part:
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (
                os.fstat(self._handle).st_ino != self.path.stat().st_ino
            ):  # finished between the two lines above
                raise OSError
        except OSError:
            os.close(self._handle)
            raise SourceError("is being downloaded by another process", where=self.target) from None
        self.size = os.lseek(self._handle, 0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
        if not self.size:
            self.path.unlink(missing_ok=True)
            self._notes.unlink(missing_ok=True)

    def continue_from(self, url: str, *, known: bool) -> tuple[int, str | None]:
        """Where the next piece begins, and the version it must be of.

        A file with a published digest is pieced together in any case, as the digest has the last word; any
        other only from the address that its bytes came from, and if that one tells versions apart.
        """
        try:
            notes = json.loads(self._notes.read_bytes())
            version = notes["version"] if notes["url"] == url else None
        except (OSError, ValueError, LookupError, TypeError):
            version = None
        if not isinstance(version, str):
            return (self.size if known else 0), None
        return self.size, version

    def note(self, url: str, version: str | None) -> None:
        """Remember where the bytes come from."""
        write_file(self._notes, json.dumps({"url": url, "version": version}).encode())

    def add(self, block: bytes) -> None:
        """Append to the part."""
        self._catch_up()
        with room_wanted(self.target):
            view = memoryview(block)
            while view:
                count = os.write(self._handle, view)
                self.size += count
                self._hash(view[:count])
                view = view[count:]

    def digests(self) -> tuple[str, str | None]:
        """Hex sha256 and, where it is needed, md5 of the part."""
        self._catch_up()
        sha256, *md5 = (digest.hexdigest() for digest in self._digests)
        return sha256, md5[0] if md5 else None

    def _hash_anew(self) -> None:
        self._digests = [hashlib.new(kind, usedforsecurity=False) for kind in self._kinds]
        self._hashed = 0  # bytes of the part that are in the digests

    def _hash(self, block: bytes | memoryview) -> None:
        for digest in self._digests:
            digest.update(block)
        self._hashed += len(block)

    def _catch_up(self) -> None:
        """Hash what an earlier process left behind, once."""
        while self._hashed < self.size:
            self._hash(os.pread(self._handle, _BLOCK, self._hashed))

    def empty(self) -> None:
        """Start again."""
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        self.size = 0
        self._hash_anew()

    def forget(self) -> None:
        """Start again, and leave nothing behind."""
        self.empty()
        self._notes.unlink(missing_ok=True)

    def publish(self) -> None:
        """Give the file its name."""
        os.fsync(self._handle)
        self.path.replace(self.target)
        self._notes.unlink(missing_ok=True)
        sync(self.target.parent)
