"""The members of zip, tar and tar.gz archives, one after the other, each checked before it is handed out."""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from partseg.errors import SourceError

_BLOCK = 1 << 20
_TAR_BLOCK = 512
GET_IT_AGAIN = "the archive is still there: delete it and get it again"
NOT_TRUSTED = "no dataset does that: check where the archive comes from"


class ArchiveError(SourceError):
    """An archive is damaged, or holds what no dataset needs."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive; ``open`` gives its content until the next member is asked for."""

    name: str
    size: int
    modified: float
    open: Callable[[], IO[bytes]]


@contextmanager
def readable(where: object) -> Iterator[None]:
    """Turn what the archive libraries raise into one error."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ArchiveError(f"is damaged or cut off ({error})", where=where, fix=GET_IT_AGAIN) from error
    except (RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError, struct.error) as error:
        raise ArchiveError(f"cannot be unpacked ({error})", where=where, fix=GET_IT_AGAIN) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f"holds a file and a folder of one name ({error.filename})", where=where
        ) from error


@contextmanager
def open_members(archive: Path, where: object) -> Iterator[tuple[Iterator[Member], int | None]]:
    """The members of an archive, and the bytes they unpack to if it says so."""
    with archive.open("rb") as stream:
        head = stream.read(_TAR_BLOCK)
        stream.seek(0)
        if head[:2] == b"PK":
            with zipfile.ZipFile(stream) as file:
                entries = file.infolist()
                yield _zip_members(file, entries, where), sum(entry.file_size for entry in entries)
        elif head[:2] == b"\x1f\x8b":
            with gzip.open(stream) as unzipped:
                yield _tar_members(cast("IO[bytes]", unzipped), where), None
        elif head[257:262] == b"ustar" or _looks_like_tar(head):
            yield _tar_members(stream, where), archive.stat().st_size
        else:
            web = " but a web page" if head.lstrip()[:1] == b"<" else ""
            raise ArchiveError(f"is no archive{web}", where=archive, fix=GET_IT_AGAIN)


def _looks_like_tar(head: bytes) -> bool:
    """Whether a block is the header of a tar without the mark that newer ones have."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _zip_members(file: zipfile.ZipFile, entries: list[zipfile.ZipInfo], where: object) -> Iterator[Member]:
    for entry in entries:
        if entry.is_dir():
            safe_path(entry.filename, where)
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ArchiveError(f"{entry.filename} is a link or a device", where=where, fix=NOT_TRUSTED)
        if entry.flag_bits & 1:
            raise ArchiveError("is encrypted", where=where, fix="unpack it by hand")
        modified = time.mktime((*entry.date_time, 0, 0, -1))
        yield Member(entry.filename, entry.file_size, modified, partial(file.open, entry))


class _Watched:
    """A stream that remembers the last block it gave: the end of a tar is a block of zeros.

    It also goes back a single byte, as tarfile does before every header, without starting a gz over.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position, self._again = 0, b""
        self.last = b""

    def read(self, size: int) -> bytes:
        """As any stream."""
        block, self._again = self._again, b""
        if len(block) < size:
            block += self._stream.read(size - len(block))
        self._position += len(block)
        self.last = block
        return block

    def seek(self, position: int) -> int:
        """As any stream."""
        if position == self._position - 1 and self.last:
            self._again = self.last[-1:] + self._again
        elif position != self._position:
            self._stream.seek(position)
            self._again = b""
        self._position = position
        return position

    def tell(self) -> int:
        """As any stream."""
        return self._position


def _tar_members(stream: IO[bytes], where: object) -> Iterator[Member]:
    watched = _Watched(stream)
    with tarfile.open(fileobj=cast("IO[bytes]", watched), mode="r:") as file:
        while (entry := file.next()) is not None:
            file.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if entry.isdir():
                safe_path(entry.name, where)
            elif entry.isreg():
                yield Member(entry.name, entry.size, entry.mtime, partial(_content, file, entry))
            else:
                raise ArchiveError(f"{entry.name} is a link or a device", where=where, fix=NOT_TRUSTED)
        # tarfile takes a file that stops between two members, or goes on with nonsense, for a short one
        if watched.last != bytes(_TAR_BLOCK):
            raise ArchiveError("is damaged or cut off (it has no end)", where=where, fix=GET_IT_AGAIN)
        while watched.read(_BLOCK):  # a gz has its checksum at the end
            pass


def _content(file: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(entry)
    assert content is not None  # it is a regular file
    return content


def safe_path(name: str, where: object) -> PurePosixPath:
    """The path of a member, which stays in the folder.

    Raises:
        ArchiveError: it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ArchiveError(f"{name!r} leads out of the folder", where=where, fix=NOT_TRUSTED)
    return path
