"""Files in a local folder, written so that a crash at any moment leaves whole files only."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from partseg.errors import StoreError
from partseg.store.files import Found

CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalFiles:
    """See :class:`partseg.store.files.Files`. The folder is created by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def read(self, name: str) -> bytes:
        """The whole file."""
        with self._explained("read"):
            try:
                return (self.root / name).read_bytes()
            except NotADirectoryError:
                raise FileNotFoundError(self.root / name) from None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the file by a rename."""
        with self._explained("written"), self._temporary(name, data) as temporary:
            temporary.replace(self.root / name)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists: a hard link fails if the name is taken, on every Unix."""
        with self._explained("written"), self._temporary(name, data) as temporary:
            try:
                (self.root / name).hardlink_to(temporary)
            except FileExistsError:
                return False
        return True

    def exclusive(self) -> bool:
        """Hard links are."""
        return True

    def size(self, name: str) -> int | None:
        """Size in bytes, or None when there is no such file."""
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def age(self, name: str) -> float | None:
        """Seconds since the inode changed: publishing a blob that is there already moves that time."""
        try:
            return time.time() - (self.root / name).stat().st_ctime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def touch(self, name: str) -> bool:
        """Move the time of the inode's last change; the file's own time stays."""
        try:
            status = (self.root / name).stat()
            os.utime(self.root / name, ns=(status.st_atime_ns, status.st_mtime_ns))
        except OSError:
            return False
        return True

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """``size`` of many files at once."""
        return {name: self.size(name) for name in names}

    def put(self, name: str, source: Path) -> None:
        """Link the file into the folder where the file system allows it, copy it elsewhere."""
        target = self.root / name
        with self._explained("written"):
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source, target)

    def get(self, name: str, target: Path) -> None:
        """Link or copy into a new file."""
        with self._explained("read"):
            link_or_copy(self.root / name, target)

    def children(self, name: str) -> list[str]:
        """Names of the entries directly in a folder, sorted; without temporary files."""
        with self._explained("read"):
            try:
                names = (entry.name for entry in (self.root / name).iterdir())
                return sorted(entry for entry in names if not entry.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def walk(self, name: str) -> Iterator[Found]:
        """Every file below a folder; a temporary file left by a crash is met as well."""
        now = time.time()
        for folder, _, files in os.walk(self.root / name):
            for file in files:
                path = Path(folder) / file
                with suppress(FileNotFoundError):
                    status = path.stat()
                    relative = path.relative_to(self.root).as_posix()
                    yield Found(name=relative, size=status.st_size, age=now - status.st_ctime)

    def remove(self, name: str) -> None:
        """Delete the file; a missing one is fine."""
        with self._explained("removed"):
            (self.root / name).unlink(missing_ok=True)

    def local_path(self, name: str) -> Path | None:
        """Where the file lies."""
        return self.root / name

    @contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[Path]:
        folder = (self.root / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield Path(path)
        finally:
            Path(path).unlink(missing_ok=True)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise StoreError(
                f"the store cannot be {verb}: {error.strerror or error}",
                where=error.filename or self.url,
                fix="mend that or choose another store with --store or PARTSEG_STORE",
            ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``: a hard link if possible, else a synced copy.

    An existing target is replaced. The target appears whole or not at all.
    """
    temporary = target.with_name(f".tmp-{os.getpid()}-{time.monotonic_ns()}-{target.name[:32]}")
    try:
        try:
            temporary.hardlink_to(source)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        # Renaming a link onto another link of the same file does nothing and leaves both.
        temporary.unlink(missing_ok=True)
