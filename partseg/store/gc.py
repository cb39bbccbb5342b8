"""Free space: forget artifacts that no recipe and no pin names, then the files nobody needs.

With a limit to the size of the store, such artifacts are kept while there is room for them.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass

from partseg.errors import StoreError
from partseg.store.store import Action, Store, blob_name

DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What may go: keys of artifacts, names of files in the store, digests of laid-out directories.

    Attributes:
        size: bytes of the files that go.
        left: bytes of those that stay.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]
    laid_out: tuple[str, ...]
    size: int
    left: int


def find_garbage(store: Store, *, grace: float = 7 * DAY, max_size: int | None = None) -> Garbage:
    """What no ref and no pin needs. Nothing is removed.

    Args:
        store: the store to look at.
        grace: whatever is younger than this many seconds is kept: a file may belong to an artifact
            that is being published right now.
        max_size: bytes the store may take. Artifacts that nobody names are kept as long as they fit, those
            used last before others; without it none is kept.
    """
    roots = set(store.refs().values()) | store.pins()
    needed: set[str] = set()
    unnamed: dict[str, float] = {}  # key -> age
    for found in list(store.files.walk("actions")):
        key = found.name.removeprefix("actions/").removesuffix(".json")
        if key in roots or found.age < grace or key.startswith(".tmp-"):
            needed |= _files_of(store, key)
        else:
            unnamed[key] = found.age
    files = [found for folder in ("trees", "blobs") for found in store.files.walk(folder)]
    if max_size is not None:
        young = {found.name for found in files if found.age < grace}
        kept = _that_fit(
            store, unnamed, {found.name: found.size for found in files}, needed | young, max_size
        )
        for key in kept:
            needed |= _files_of(store, key)
            del unnamed[key]
    spare = [found for found in files if found.name not in needed and found.age >= grace]
    size = sum(found.size for found in spare)
    return Garbage(
        keys=tuple(unnamed),
        files=tuple(found.name for found in spare),
        laid_out=_unneeded_layouts(store, needed, grace),
        size=size,
        left=sum(found.size for found in files) - size,
    )


def collect(store: Store, garbage: Garbage) -> None:
    """Remove what :func:`find_garbage` found; commits first, so that no artifact is ever half there."""
    for key in garbage.keys:
        store.remove(key)
    for digest in garbage.laid_out:
        shutil.rmtree(store.layout(digest), ignore_errors=True)
    for name in garbage.files:
        store.files.remove(name)
        (store.cache / name).unlink(missing_ok=True)  # what was downloaded of a remote store


def _that_fit(
    store: Store, ages: Mapping[str, float], sizes: Mapping[str, int], needed: set[str], max_size: int
) -> list[str]:
    """Keys that fit beside what is ``needed``, those used last first; damaged artifacts are not among them.

    An artifact was used when it was published, and when this machine last laid it out.
    """
    there = set(needed)
    room = max_size - sum(sizes.get(name, 0) for name in there)
    used = {key: min(age, _layout_age(store, key)) for key, age in ages.items()}
    kept = []
    for key in sorted(used, key=lambda key: (used[key], key)):
        files = _files_of(store, key)
        size = sum(sizes.get(name, 0) for name in files - there)
        if size > max(room, 0):
            break
        room -= size
        there |= files
        if files:
            kept.append(key)
    return kept


def _layout_age(store: Store, key: str) -> float:
    """Seconds since this machine last used the files of an artifact; infinite if it does not have them."""
    action = store.action(key)
    try:
        return math.inf if action is None else time.time() - store.layout(action.tree).stat().st_ctime
    except FileNotFoundError:
        return math.inf


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
    shutil.rmtree(store.layout(action.tree), ignore_errors=True)
