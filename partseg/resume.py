"""What has been done so far, on disk, so that killed work goes on where it stopped."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from partseg import __version__
from partseg.errors import LayoutError
from partseg.files import replacing_file, write_file

_DIGEST_BYTES = hashlib.sha256().digest_size
_PLAN = "plan.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def write_sealed(path: Path, content: bytes | memoryview) -> None:
    """Write a file, all of it or nothing, with the digest of its content at the end.

    Raises:
        LayoutError: the disk is full, or the folder cannot be written to.
    """
    try:
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
    except OSError as error:
        raise _cannot_write(error, path.parent) from error


def read_sealed(path: Path) -> memoryview | None:
    """The content of a file of :func:`write_sealed`; None if it is missing or not what was written."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    content, digest = whole[:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def code_digest(*packages: str) -> list[str]:
    """What finished work depends on beside its inputs: partseg's version and the source of some packages."""
    code = hashlib.sha256()
    for package in packages:
        for path in sorted((Path(__file__).parent / package).rglob("*.py")):
            code.update(path.read_bytes())
    return [__version__, code.hexdigest()]


@contextmanager
def working_folder(
    work: Path, plan: Mapping[str, Any], *, doing: str = "converting", kept: bool = False
) -> Iterator[Path]:
    """The folder of finished pieces: kept when the work fails, emptied if it belongs to another plan.

    Args:
        work: the folder; made if it is not there.
        plan: what the pieces depend on, plain data.
        doing: the work, for a message.
        kept: leave the folder as it is at the end, too; otherwise it goes.

    Raises:
        LayoutError: another process is at work with the same folder, or the disk is full.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(error, work) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LayoutError(
                f"another process is {doing} into the same folder", where=work, fix="wait for it"
            ) from None
        content = orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)
        known = work / _PLAN
        if not known.is_file() or known.read_bytes() != content:
            _empty(work)
            write_file(known, content)
        yield work
        if not kept:
            _empty(work)
            work.rmdir()
    except OSError as error:
        if error.errno in _FULL:
            raise _cannot_write(error, work.parent) from error
        raise
    finally:
        os.close(lock)


def _cannot_write(error: OSError, folder: Path) -> LayoutError:
    """What to say when the disk is full, or a folder cannot be written to."""
    return LayoutError(
        f"the work cannot write here ({os.strerror(error.errno) if error.errno else error})",
        where=folder,
        fix="free some space, or name another folder, and run the same command again: it goes on where it "
        "stopped",
    )


def _empty(work: Path) -> None:
    """The plan goes first: what a killed process leaves of the rest then belongs to none."""
    (work / _PLAN).unlink(missing_ok=True)
    for left in work.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
