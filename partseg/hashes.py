"""sha256 of files, read once: a file with the size and modification time of before is not read again."""

from __future__ import annotations

import json
import time
from pathlib import Path

from partseg.files import sha256_file, write_file

# A file written this recently may change again within one tick of its time stamp: not remembered.
TOO_FRESH = 2.0

# size in bytes, modification time in nanoseconds, hex digest
Stamp = tuple[int, int, str]


class HashCache:
    """The hashes of the files below one folder.

    Args:
        root: the folder.
        record: the file that keeps the hashes between two uses; it is only a cache and may be deleted.
    """

    def __init__(self, root: Path, record: Path) -> None:
        self.root, self.record = root, record
        self._known = _load(record)
        self._fresh: dict[str, Stamp] = {}
        self._final: set[str] = set()

    def stamp(self, name: str) -> Stamp:
        """The stamp of the file ``name`` (relative to the root), read only if it is new or changed.

        May be called from several threads.

        Raises:
            OSError: the file is missing or unreadable.
        """
        path = self.root / name
        status = path.stat()
        found = (status.st_size, status.st_mtime_ns)
        before = self._fresh.get(name) or self._known.get(name)
        if before is None or before[:2] != found:
            before = (*found, sha256_file(path))
        self._fresh[name] = before
        return before

    def put(self, name: str, sha256: str) -> None:
        """Note the digest of a file that the caller has just written and nobody else writes."""
        status = (self.root / name).stat()
        self._fresh[name] = (status.st_size, status.st_mtime_ns, sha256)
        self._final.add(name)

    def save(self) -> None:
        """Keep what is known for the next use, if there is anything new."""
        if all(self._known.get(name) == stamp for name, stamp in self._fresh.items()):
            return
        now = time.time_ns()
        settled = {
            name: stamp
            for name, stamp in {**self._known, **self._fresh}.items()
            if name in self._final or now - stamp[1] > TOO_FRESH * 1e9
        }
        write_file(self.record, json.dumps(settled, sort_keys=True, separators=(",", ":")).encode())


def _load(record: Path) -> dict[str, Stamp]:
    try:
        return {name: (row[0], row[1], row[2]) for name, row in json.loads(record.read_bytes()).items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}  # only a cache: the files are hashed again
