"""Free space: forget artifacts that no recipe and no pin names, then the files nobody needs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass

from partseg.errors import StoreError
from partseg.store.store import Action, Store, blob_name

DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What may go: keys of artifacts, names of files in the store, digests of laid-out directories."""

    keys: tuple[str, ...]
    files: tuple[str, ...]
    laid_out: tuple[str, ...]
    size: int


def find_garbage(store: Store, *, grace: float = 7 * DAY) -> Garbage:
    """What no ref and no pin needs. Nothing is removed.

    Args:
        store: the store to look at.
        grace: whatever is younger than this many seconds is kept: a file may belong to an artifact
            that is being published right now.
    """
    roots = set(store.refs().values()) | store.pins()
    keys, needed = [], set()
    for found in list(store.files.walk("actions")):
        key = found.name.removeprefix("actions/").removesuffix(".json")
        if key in roots or found.age < grace or key.startswith(".tmp-"):
            needed |= _files_of(store, key)
        else:
            keys.append(key)
    spare, size = [], 0
    for folder in ("trees", "blobs"):
        for found in store.files.walk(folder):
            if found.name not in needed and found.age >= grace:
                spare.append(found.name)
                size += found.size
    return Garbage(
        keys=tuple(keys), files=tuple(spare), laid_out=_unneeded_layouts(store, needed, grace), size=size
    )


def collect(store: Store, garbage: Garbage) -> None:
    """Remove what :func:`find_garbage` found; commits first, so that no artifact is ever half there."""
    for key in garbage.keys:
        store.remove(key)
    for digest in garbage.laid_out:
        shutil.rmtree(store.cache / "trees" / digest, ignore_errors=True)
    for name in garbage.files:
        store.files.remove(name)


def _files_of(store: Store, key: str) -> set[str]:
    try:
        action = store.action(key)
        if action is None:
            return set()
        tree = store.tree(action.tree)
    except (StoreError, json.JSONDecodeError):
        return set()
    return {f"trees/{action.tree}.json", *(blob_name(entry.sha256) for entry in tree.entries)}


def _unneeded_layouts(store: Store, needed: set[str], grace: float) -> tuple[str, ...]:
    """Directories in the cache whose artifact goes: as hard links they would keep the space taken."""
    folder, now = store.cache / "trees", time.time()
    if not folder.is_dir():
        return ()
    return tuple(
        path.name
        for path in sorted(folder.iterdir())
        if f"trees/{path.name}.json" not in needed and now - path.stat().st_ctime >= grace
    )


def drop_damaged(store: Store, action: Action) -> None:
    """Forget a damaged artifact and those of its blobs that are not what they should be."""
    store.remove(action.key)
    try:
        tree = store.tree(action.tree)
    except StoreError:
        store.files.remove(f"trees/{action.tree}.json")
        return
    for entry in tree.entries:
        if not store.is_sound(entry):
            store.files.remove(blob_name(entry.sha256))
    shutil.rmtree(store.cache / "trees" / action.tree, ignore_errors=True)
