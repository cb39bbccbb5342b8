"""Archives from strangers: unpacked beside their place, moved there when they are whole.

What is unpacked so far is found again after an interruption by the size and time stamp that a finished file
gets. Links, devices and paths that lead out of the folder are refused, and so is an archive that swells out
of all proportion.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from partseg.acquire.archive_members import (
    GET_IT_AGAIN,
    NOT_TRUSTED,
    ArchiveError,
    Member,
    open_members,
    readable,
    safe_path,
)
from partseg.acquire.disk import need_room, room_wanted
from partseg.datasets.facts import InnerArchive, Keep, Unpack
from partseg.errors import SourceError
from partseg.progress import Progress, Silent

_BLOCK = 1 << 20
# What archives made on a Mac carry along.
_LITTER = ("__MACOSX", ".DS_Store", "._*")


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an archive may swell. ImageNet has 1.3 million files; part JSON shrinks to a tenth at most.

    Attributes:
        members: entries.
        ratio: bytes unpacked for each byte of the archive, ...
        small: ... unless they are no more than this.
    """

    members: int = 5_000_000
    ratio: float = 100.0
    small: int = 1 << 28


def unpack(
    archive: Path,
    root: Path,
    how: Unpack,
    *,
    limits: Limits | None = None,
    report: Progress | None = None,
) -> None:
    """Unpack a zip, tar or tar.gz.

    Doing it again changes nothing; after an interruption it goes on.

    Args:
        archive: the file; it stays as it is.
        root: the raw folder.
        how: which members, and where they go.
        limits: how large it may get.
        report: told in bytes.

    Raises:
        ArchiveError: it is damaged, cut off or not to be trusted. Nothing of it is in the raw folder then.
        DiskFull: it does not fit.
        SourceError: the raw folder cannot be written.
    """
    work = root / f".unpack-{archive.name}"
    try:
        work.mkdir(parents=True, exist_ok=True)
        _Unpacking(archive, work, how, limits or Limits(), report or Silent()).run()
        _merge(work, root)
    except ArchiveError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    except OSError as error:
        raise SourceError(f"cannot be unpacked: {error.strerror or error}", where=error.filename) from error


class _Unpacking:
    """Takes the members of an archive, and of those inside it, out into ``work``."""

    def __init__(self, archive: Path, work: Path, how: Unpack, limits: Limits, report: Progress) -> None:
        self.archive, self.work, self.how, self.name = archive, work, how, archive.name
        self.limits, self.report = limits, report
        self.most = max(limits.small, int(archive.stat().st_size * limits.ratio))
        self.there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        self.bytes = self.members = self.total = 0

    def run(self) -> None:
        """Everything."""
        self._unpack(self.archive, self.how, self.archive)
        for mark in list(self.work.rglob(".*.unpacked")):
            mark.unlink()
        if not any(path.is_file() for path in self.work.rglob("*")):
            raise ArchiveError(
                f"holds none of {', '.join(self.how.keep)}",
                where=self.archive,
                fix="check that it is the right archive",
            )

    def _unpack(self, archive: Path, how: Keep, where: object) -> None:
        with readable(where), open_members(archive, where) as (members, total):
            if total is not None:
                self.total = max(self.total, total)
                self._bounded(total, 0, where)
                need_room(self.work.parent, total - self.there, f"{archive.name} unpacked")
            for member in members:
                self._bounded(0, 1, where)
                kept = _kept(safe_path(member.name, where), how.keep)
                if kept is not None:
                    target = self.work / how.into / kept
                    inner = next(
                        (item for item in self._inner(how) if fnmatchcase(target.name, item.match)), None
                    )
                    if inner is None:
                        self._one(member, target, where)
                    else:
                        self._archive(member, target, inner, where)

    def _inner(self, how: Keep) -> tuple[InnerArchive, ...]:
        return how.inner if isinstance(how, Unpack) else ()

    def _archive(self, member: Member, target: Path, how: InnerArchive, where: object) -> None:
        """An archive inside the archive: taken out, unpacked and removed before the next one."""
        mark = target.with_name(f".{target.name}.unpacked")
        if mark.exists():
            return
        self._one(member, target, where)
        into = how.into.replace("{stem}", target.name.split(".")[0])
        self._unpack(target, Keep(keep=how.keep, into=into), f"{where}: {target.name}")
        target.unlink()
        mark.touch()

    def _one(self, member: Member, target: Path, where: object) -> None:
        modified = int(member.modified)
        try:
            status = target.stat()
            done = status.st_size == member.size and int(status.st_mtime) == modified
        except OSError:
            done = False
        self._bounded(member.size, 0, where)
        self.bytes += member.size
        self.report.update(self.bytes, self.total, f"unpacking {self.name}")
        if done:
            return
        with room_wanted(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with member.open() as source, target.open("xb") as sink:
                left = member.size
                while block := source.read(min(_BLOCK, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise ArchiveError(f"{member.name} is larger than it says", where=where)
                    sink.write(block)
                if left:
                    raise ArchiveError(f"is cut off within {member.name}", where=where, fix=GET_IT_AGAIN)
            os.utime(target, (modified, modified))  # last: says that the file is whole

    def _bounded(self, size: int, members: int, where: object) -> None:
        self.members += members
        if self.members > self.limits.members:
            raise ArchiveError(f"has more than {self.limits.members} members", where=where, fix=NOT_TRUSTED)
        if self.bytes + size > self.most:
            raise ArchiveError(f"swells to more than {self.most} bytes", where=where, fix=NOT_TRUSTED)


def _kept(path: PurePosixPath, keep: tuple[str, ...]) -> PurePosixPath | None:
    """The part of the path from the first kept name on."""
    if any(fnmatchcase(part, pattern) for part in path.parts for pattern in _LITTER):
        return None
    for index, part in enumerate(path.parts):
        if any(fnmatchcase(part, pattern) for pattern in keep):
            return PurePosixPath(*path.parts[index:])
    return None


def _merge(source: Path, target: Path) -> None:
    """Move what is in one folder into another, whole folders at a time where that is possible."""
    for item in sorted(source.iterdir()):
        place = target / item.name
        if item.is_dir() and place.is_dir():
            _merge(item, place)
        else:
            if place.is_dir() or (item.is_dir() and place.exists()):
                raise ArchiveError(
                    "a file and a folder of this name are in the way of each other", where=place
                )
            item.replace(place)
    source.rmdir()
