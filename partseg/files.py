"""Files that appear at once or not at all, and where working files go."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def default_cache() -> Path:
    """Where working files go that can be made again: ``$PARTSEG_CACHE``, or ``.partseg/cache`` here."""
    return Path(os.environ.get("PARTSEG_CACHE") or Path(".partseg") / "cache")


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old content or the new one."""
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary sibling to write; it takes the place of ``path`` at the end, or vanishes on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file or folder on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
