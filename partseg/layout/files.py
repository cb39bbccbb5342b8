"""Folders that appear at once or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from partseg.errors import LayoutError
from partseg.files import sync


class NewFolder:
    """A folder written under a temporary name beside its final one.

    The temporary folder is locked while its writer lives, so that what a killed writer left behind is
    recognised and removed by the next one.

    Args:
        out: the final path; it must not exist, or be an empty folder.

    Raises:
        LayoutError: ``out`` is taken.
    """

    def __init__(self, out: Path) -> None:
        check_free(out)
        self.out = out
        out.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{out.name}.writing-"
        for left_behind in out.parent.glob(f"{prefix}*"):
            _remove_if_dead(left_behind)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def commit(self) -> None:
        """Give the folder its final name; everything in it is on disk before."""
        try:
            for path in sorted(self.path.rglob("*")):
                sync(path)
            self.path.chmod(0o755)
            sync(self.path)
            self.path.replace(self.out)
            sync(self.out.parent)
        finally:
            self._release()

    def discard(self) -> None:
        """Remove everything written so far."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def check_free(out: Path) -> None:
    """Raise a LayoutError if ``out`` is anything but an empty folder or nothing at all."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LayoutError("already exists", where=out, fix="name a new folder, or delete this one")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A :class:`NewFolder` to write into; it takes its final name at the end, or vanishes on an error.

    Raises:
        LayoutError: ``out`` is taken.
    """
    folder = NewFolder(out)
    try:
        yield folder.path
        folder.commit()
    except BaseException:
        folder.discard()
        raise


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(handle)
