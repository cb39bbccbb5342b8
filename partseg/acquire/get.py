"""The raw files of a dataset: what is there, and getting what is not.

What has been fetched is noted in ``.partseg/`` of the raw folder: digests, so that a file is hashed once, and
which archives are unpacked, so that they need not be kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from partseg.acquire.archives import unpack
from partseg.acquire.disk import need_room
from partseg.acquire.download import Wanted, download
from partseg.acquire.remote import NotThere, is_http
from partseg.datasets.facts import DataManifest, RemoteFile
from partseg.errors import SourceError
from partseg.files import write_file
from partseg.hashes import HashCache
from partseg.progress import Progress, Silent

State = Literal["ready", "to unpack", "partial", "missing", "by hand"]
_NOTES = Path(".partseg")


@dataclass(frozen=True, slots=True)
class FileState:
    """One file of a manifest in a raw folder.

    Attributes:
        file: the file.
        state: "ready" (everything it provides is there), "to unpack" (its archive is there), "partial" (some
            of it has arrived), "missing", or "by hand" (missing, and a person has to get it).
        short: what it should provide and does not: path -> (files found, files expected).
        arrived: bytes of it that are there.
    """

    file: RemoteFile
    state: State
    short: dict[str, tuple[int, int]]
    arrived: int


def chosen_files(manifest: DataManifest, only: Sequence[str] = ()) -> tuple[RemoteFile, ...]:
    """The files named ``only`` (by path or by name), or all that are not optional.

    Raises:
        SourceError: there is no such file, or nothing to get at all.
    """
    if not manifest.files:
        raise SourceError(
            f"{manifest.name} reads your own files: there is nothing to get",
            fix="name their folder with --raw",
        )
    if not only:
        return tuple(file for file in manifest.files if not file.optional)
    known = {name: file for file in manifest.files for name in (file.name, file.path)}
    for name in only:
        if name not in known:
            names = ", ".join(file.name for file in manifest.files)
            raise SourceError(f"{manifest.name} has no file {name}", fix=f"there are: {names}")
    return tuple(file for file in manifest.files if file.name in only or file.path in only)


def file_state(file: RemoteFile, root: Path) -> FileState:
    """What of a file is there. Counts files, and reads none."""
    short = {}
    for path, expected in file.results.items():
        found = _count(root / path, expected)
        if found < (expected or 1):
            short[path] = (found, expected or 1)
    archive, part = root / file.path, root / f"{file.path}.part"
    state: State
    if not short:
        return FileState(file, "ready", {}, 0)
    if file.unpack is not None and archive.is_file():
        return FileState(file, "to unpack", short, archive.stat().st_size)
    if part.is_file():
        return FileState(file, "partial", short, part.stat().st_size)
    state = "missing" if file.urls else "by hand"
    return FileState(file, state, short, 0)


def get(
    manifest: DataManifest,
    root: Path,
    *,
    mirror: str | None = None,
    only: Sequence[str] = (),
    keep_archives: bool = False,
    attempts: int = 6,
    wait: float = 1.0,
    report: Progress | None = None,
) -> tuple[FileState, ...]:
    """Bring the files of a dataset into a raw folder; those that are there are checked and left alone.

    Calling it again after whatever interruption goes on where it stopped.

    Args:
        manifest: the dataset.
        root: its raw folder.
        mirror: a folder or URL with the same files at the same relative paths, tried before the publisher's.
        only: names of files; all that are not optional if none are named.
        keep_archives: do not delete a downloaded archive once it is unpacked. One that a person has put there
            is never deleted.
        attempts: tries in a row without progress before an address is given up.
        wait: seconds before the second of them.
        report: told in bytes.

    Returns:
        The files as they are now; those "by hand" are for a person to get.

    Raises:
        DownloadError: a file cannot be had.
        SourceError: an archive does not hold what it should, or another process is at work in the folder.
        ChecksumError: a file is not the published one, or not the one that was first downloaded.
        ArchiveError: an archive is damaged.
        DiskFull: there is no room.
    """
    report = report or Silent()
    files = chosen_files(manifest, only)
    work = _Getting(root, mirror, keep_archives, attempts, wait, report)
    todo = [state for file in files if (state := file_state(file, root)).state in ("missing", "partial")]
    if todo:
        # every archive once, and the largest twice: while it is being unpacked
        sizes = [(state.file.size or 0) - state.arrived for state in todo]
        largest = max((state.file.size or 0 for state in todo if state.file.unpack), default=0)
        need_room(root, sum(sizes) + largest, manifest.name)
    with _alone(root):
        try:
            for file in files:
                work.one(file)
        finally:
            work.hashes.save()
    return tuple(file_state(file, root) for file in files)


def steps_by_hand(states: Sequence[FileState], root: Path) -> list[str]:
    """What a person has to do for the files that only a person can get, in order."""
    by_hand = [state for state in states if state.state == "by hand"]
    return [step.replace("{root}", str(root)) for state in by_hand for step in state.file.steps]


def check_complete(states: Sequence[FileState], root: Path) -> None:
    """Raise a SourceError that names the files only a person can get, and how, if some are missing."""
    names = ", ".join(state.file.path for state in states if state.state == "by hand")
    if names:
        steps = " ".join(f"{n}. {step}" for n, step in enumerate(steps_by_hand(states, root), 1))
        raise SourceError(f"missing: {names}", where=root, fix=f"get them by hand: {steps}")


class _Getting:
    """Gets files into one raw folder."""

    def __init__(
        self, root: Path, mirror: str | None, keep: bool, attempts: int, wait: float, report: Progress
    ) -> None:
        self.root, self.mirror, self.keep = root, mirror, keep
        self.attempts, self.wait, self.report = attempts, wait, report
        self.hashes = HashCache(root, root / _NOTES / "hashes.json")
        self.notes = root / _NOTES / "files.json"

    def one(self, file: RemoteFile) -> None:
        """One file: fetched, checked, unpacked."""
        path = self.root / file.path
        if path.is_file():
            self._check(file, path)
        if file_state(file, self.root).state == "ready":
            return
        if not path.is_file():
            urls = self._urls(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not urls:
                return
            try:
                arrived = download(
                    urls,
                    path,
                    wanted=self._wanted(file),
                    attempts=self.attempts,
                    wait=self.wait,
                    report=self.report,
                )
            except NotThere:
                if file.urls:
                    raise
                return  # the mirror does not have it: a person has to get it
            self.hashes.put(file.path, arrived.sha256)
            self._note(file, sha256=arrived.sha256, bytes=arrived.bytes, url=arrived.url, ours=True)
        if file.unpack is not None:
            self.report.log(f"unpacking {file.name}")
            unpack(path, self.root, file.unpack, report=self.report)
        state = file_state(file, self.root)
        if state.short:
            what, (found, expected) = next(iter(state.short.items()))
            raise SourceError(
                f"{file.name} should have brought {expected} files to {what}, but there are {found}",
                where=self.root,
                fix="the publisher may have changed it: compare it with the manifest",
            )
        if file.unpack is not None and not self.keep and self._noted(file).get("ours"):
            self._note(file, **{**self._noted(file), "ours": False})
            path.unlink()

    def _check(self, file: RemoteFile, path: Path) -> None:
        """Compare a file that is there with what is published, or with what was first downloaded."""
        size, _, sha256 = self.hashes.stamp(file.path)
        known, wanted = self._noted(file), self._wanted(file)
        if known.get("sha256") == sha256 and wanted.sha256 in (None, sha256):
            return
        md5 = _md5(path) if wanted.sha256 is None and wanted.md5 is not None else None
        fix = "it is another file, or damaged: delete it and run the command again"
        wanted.check(path, size=size, sha256=sha256, md5=md5, fix=fix)
        self._note(file, sha256=sha256, bytes=size, url=None, ours=False)

    def _wanted(self, file: RemoteFile) -> Wanted:
        if file.sha256 is None and file.md5 is None:
            known = self._noted(file).get("sha256")
            said_by = f"that of the first download, noted in {self.notes}" if known else file.checksum_source
            return Wanted(bytes=file.bytes, sha256=known, said_by=said_by)
        return Wanted(bytes=file.bytes, sha256=file.sha256, md5=file.md5, said_by=file.checksum_source)

    def _urls(self, file: RemoteFile) -> tuple[str, ...]:
        if self.mirror is None or (file.unpack is None and file.provides):  # a folder, not a file
            return file.urls
        path = quote(file.path) if is_http(self.mirror) else file.path
        return (f"{self.mirror.rstrip('/')}/{path}", *file.urls)

    def _noted(self, file: RemoteFile) -> dict[str, Any]:
        """What is noted of a file: sha256, bytes, url, and whether the archive is ours to delete."""
        return self._read_notes().get(file.path, {})

    def _note(self, file: RemoteFile, **facts: object) -> None:
        content = {**self._read_notes(), file.path: facts}
        write_file(self.notes, json.dumps(content, indent=1, sort_keys=True).encode())

    def _read_notes(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self.notes.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SourceError(
                f"the notes are damaged ({error})", where=self.notes, fix="delete them"
            ) from error
        return content if isinstance(content, dict) else {}


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time fills a raw folder; the system lets go of the lock when it dies."""
    path = root / _NOTES / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(
                "another process is getting files into this folder", where=root, fix="wait for it, or stop it"
            ) from None
        yield


def _count(path: Path, enough: int | None) -> int:
    """Files at or below a path; stops counting where the number does not matter."""
    if path.is_file():
        return 1
    found = 0
    for _, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += len(names)
        if enough is None and found:
            break
    return found


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
