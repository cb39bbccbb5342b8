"""Free space: forget artifacts that nobody needs any more, then the files that no artifact is made of.

Needed is what can be reached from the roots through what each artifact was made from. Roots are what recipes
name as the last artifact of a stage, pins, what is being built at this moment, and whatever is young. With a
limit to the size of the store, other artifacts are kept as well while there is room for them.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from partseg.errors import StoreError
from partseg.store.blobs import at_once, blob_name
from partseg.store.files import Found
from partseg.store.lease import held_keys
from partseg.store.records import Action
from partseg.store.store import Store

DAY = 24 * 3600.0
FOLDERS = ("trees", "blobs", "tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What may go: keys of artifacts, names of files in the store, digests of laid-out directories.

    Attributes:
        sizes: key -> bytes of the artifact, those of files it shares with others among them.
        size: bytes of the files that go.
        left: bytes of those that stay.
        seen: the keys there were.
        named: those of them that recipes named.
        grace: seconds for which everything is kept.
    """

    keys: tuple[str, ...]
    files: tuple[str, ...]
    laid_out: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    size: int
    left: int
    seen: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    grace: float


def find_garbage(
    store: Store,
    *,
    grace: float = 7 * DAY,
    max_size: int | None = None,
    roots: Iterable[str] | None = None,
) -> Garbage:
    """What no root needs. Nothing is removed.

    Args:
        store: the store to look at.
        grace: whatever is younger than this many seconds is kept: a file may belong to an artifact
            that is being published right now.
        max_size: bytes the store may take. Artifacts that nobody needs are kept as long as they fit, those
            used last before others; without it none is kept.
        roots: keys to keep with what they were made from, beside pins, leases and what is young. All that
            recipes name, if not given.

    Raises:
        StoreError: a pin cannot be read, so that nobody knows what it keeps.
    """
    survey = _Survey(store)
    young = {key for key, age in survey.ages.items() if age < grace}
    refs = set(store.refs().values())
    reached = survey.reached((refs if roots is None else set(roots)) | young | _always(store))
    needed = survey.files(reached)
    unnamed = {key: age for key, age in survey.ages.items() if key not in reached}
    files = [found for folder in FOLDERS for found in store.files.walk(folder)]
    sizes = {found.name: found.size for found in files}
    if max_size is not None:
        there = needed | {found.name for found in files if found.age < grace}
        for key in _that_fit(survey, unnamed, sizes, there, max_size):
            needed |= survey.files([key])
            del unnamed[key]
    spare = [found for found in (*files, *survey.left) if found.name not in needed and found.age >= grace]
    size = sum(found.size for found in spare)
    return Garbage(
        keys=tuple(unnamed),
        files=tuple(found.name for found in spare),
        laid_out=_unneeded_layouts(store, needed, grace),
        sizes={key: sum(sizes.get(name, 0) for name in survey.files([key])) for key in unnamed},
        size=size,
        left=sum(found.size for found in (*files, *survey.left)) - size,
        seen=frozenset(survey.ages),
        named=frozenset(refs),
        grace=grace,
    )


def collect(store: Store, garbage: Garbage) -> None:
    """Remove what :func:`find_garbage` found, except what somebody has begun to need since.

    Commits go first, so that no artifact is ever half there.
    """
    survey = _Survey(store, among={*garbage.keys, *(set(store.keys()) - garbage.seen)})
    since = set(survey.ages) - garbage.seen
    named = set(store.refs().values()) - garbage.named
    wanted = survey.reached(_always(store) | named | since)
    gone = [key for key in garbage.keys if key not in wanted]
    needed = survey.files(wanted)
    at_once(store.remove, gone)

    def remove(name: str) -> None:
        # Whoever publishes a file that is there already touches it first.
        age = None if name in needed else store.files.age(name)
        if age is not None and age >= garbage.grace:
            store.files.remove(name)
            (store.cache / name).unlink(missing_ok=True)  # what was downloaded of a remote store

    at_once(remove, garbage.files)
    for digest in garbage.laid_out:
        if f"trees/{digest}.json" not in needed:
            shutil.rmtree(store.layout(digest), ignore_errors=True)
    _clean_cache(store.cache, garbage.grace)


def _always(store: Store) -> set[str]:
    return {pin.key for pin in store.pins().values()} | held_keys(store.files)


class _Survey:
    """What there is: the records, how old they are, and what each was made from."""

    def __init__(self, store: Store, *, among: Iterable[str] | None = None) -> None:
        self.store = store
        self.ages: dict[str, float] = {}
        self.left: list[Found] = []  # temporary files of writers that were killed
        wanted = None if among is None else set(among)
        for found in store.files.walk("actions"):
            key = found.name.removeprefix("actions/").removesuffix(".json")
            if key.startswith("."):
                self.left.append(found)
            elif wanted is None or key in wanted:
                self.ages[key] = found.age
        self.actions = {action.key: action for action in store.actions(self.ages)}
        self._files: dict[str, frozenset[str]] = {}
        self._made: dict[str, list[str]] = {}
        for action in self.actions.values():
            self._made.setdefault(action.tree, []).append(action.key)

    def reached(self, roots: Iterable[str]) -> set[str]:
        """The keys among ``roots`` that are there, and all that they were made from."""
        found: set[str] = set()
        contents: set[str] = set()  # those of which all makers were met
        waiting = [key for key in roots if key in self.ages]
        while waiting:
            key = waiting.pop()
            if key in found:
                continue
            found.add(key)
            action = self.actions.get(key)
            if action is None:  # a damaged record
                continue
            keys = action.facts.get("input_keys", {})
            for stage, digest in action.inputs.items():
                named = self.actions.get(keys.get(stage, ""))
                if named is not None and named.tree == digest:
                    waiting.append(named.key)
                elif digest not in contents:
                    contents.add(digest)
                    waiting.extend(self._made.get(digest, ()))
        return found

    def files(self, keys: Iterable[str]) -> set[str]:
        """Names of the files that artifacts are made of; none for a damaged one."""
        keys = list(keys)
        missing = [key for key in keys if key not in self._files]
        self._files.update(zip(missing, at_once(self._files_of, missing), strict=True))
        return {name for key in keys for name in self._files[key]}

    def _files_of(self, key: str) -> frozenset[str]:
        action = self.actions.get(key)
        if action is None:
            return frozenset()
        try:
            tree = self.store.tree(action.tree)
        except StoreError:
            return frozenset()
        return frozenset((f"trees/{action.tree}.json", *(blob_name(entry.sha256) for entry in tree.entries)))


def _that_fit(
    survey: _Survey, ages: Mapping[str, float], sizes: Mapping[str, int], needed: set[str], max_size: int
) -> list[str]:
    """Keys that fit beside what is ``needed``, those used last first; damaged artifacts are not among them.

    An artifact was used when it was published, and when this machine last laid it out.
    """
    there = set(needed)
    room = max_size - sum(sizes.get(name, 0) for name in there)
    used = {key: min(age, _layout_age(survey, key)) for key, age in ages.items()}
    kept = []
    for key in sorted(used, key=lambda key: (used[key], key)):
        files = survey.files([key])
        size = sum(sizes.get(name, 0) for name in files - there)
        if size > max(room, 0):
            break
        room -= size
        there |= files
        if files:
            kept.append(key)
    return kept


def _layout_age(survey: _Survey, key: str) -> float:
    """Seconds since this machine last used the files of an artifact; infinite if it does not have them."""
    action = survey.actions.get(key)
    try:
        if action is not None:
            return time.time() - survey.store.layout(action.tree).stat().st_ctime
    except FileNotFoundError:
        pass
    return math.inf


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


def _clean_cache(cache: Path, grace: float) -> None:
    """Remove downloads that were cut short."""
    for path in (cache / "blobs").glob("*/.tmp-*"):
        if time.time() - path.stat().st_ctime >= grace:
            path.unlink(missing_ok=True)


def drop_damaged(store: Store, action: Action) -> None:
    """Forget a damaged artifact and those of its blobs that are not what they should be."""
    store.remove(action.key)
    try:
        tree = store.tree(action.tree)
    except StoreError:
        store.files.remove(f"trees/{action.tree}.json")
        return
    for entry in tree.entries:
        if not store.blobs.is_sound(entry):
            store.files.remove(blob_name(entry.sha256))
    shutil.rmtree(store.layout(action.tree), ignore_errors=True)
