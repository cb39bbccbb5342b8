"""Copy artifacts between two stores, whole and verified on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from partseg.errors import MissingArtifact
from partseg.files import sha256_file
from partseg.store.store import Store, blob_name


def copy_artifacts(
    source: Store, target: Store, keys: Iterable[str], *, report: Callable[[str], None] = lambda key: None
) -> int:
    """Copy the artifacts under ``keys``; returns the bytes copied.

    Blobs the target has already are not moved again. The commit comes last, as in a publish.

    Raises:
        MissingArtifact: the source lacks one of them, or holds a damaged file of it.
    """
    copied = 0
    for key in keys:
        action = source.lookup(key)
        if action is None:
            raise MissingArtifact(f"no whole artifact under {key[:12]}", where=source.url)
        if target.lookup(key) == action:
            continue
        tree = source.tree(action.tree)
        sizes = target.files.sizes([blob_name(entry.sha256) for entry in tree.entries])
        with tempfile.TemporaryDirectory(prefix="partseg-", dir=_scratch(target)) as folder:
            for entry in tree.entries:
                if sizes[blob_name(entry.sha256)] == entry.size:
                    continue
                path = Path(folder) / entry.sha256
                _copy_out(source, entry.sha256, path)
                target.files.put(blob_name(entry.sha256), path)
                copied += entry.size
        target.files.write(f"trees/{tree.digest}.json", tree.data)
        target.commit(action)
        report(key)
    return copied


def _copy_out(source: Store, sha256: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    local = source.files.local_path(blob_name(sha256))
    if local is None:
        source.files.get(blob_name(sha256), path)
    else:
        path.write_bytes(local.read_bytes())  # a link would tie the two stores together
    if sha256_file(path) != sha256:
        raise MissingArtifact(f"blob {sha256[:12]} is damaged", where=source.url)


def _scratch(target: Store) -> Path | None:
    """On a local target, a folder on its own disk: the copies then move in by a link."""
    root = target.files.local_path("tmp")
    if root is not None:
        root.mkdir(parents=True, exist_ok=True)
    return root
