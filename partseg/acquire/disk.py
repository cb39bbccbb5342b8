"""Room on a disk: asked for before a large file is written, and missed in words a person understands."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from partseg.errors import SourceError

# no space, over quota, larger than this process may write
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(SourceError):
    """There is not enough room for raw data."""


def need_room(folder: Path, size: int, what: str) -> None:
    """Make sure that ``size`` more bytes fit into ``folder``.

    Raises:
        DiskFull: they do not.
    """
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if size > free:
        raise DiskFull(
            f"{what} needs {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free",
            where=folder,
            fix="make room, or name a folder on another disk with --to",
        )


@contextmanager
def room_wanted(path: Path) -> Iterator[None]:
    """Turn the system's error about a full disk into one that says what to do.

    Raises:
        DiskFull: the disk got full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(
            f"cannot be written further: {error.strerror}",
            where=path,
            fix="make room and run the command again: it goes on where it stopped",
        ) from error
