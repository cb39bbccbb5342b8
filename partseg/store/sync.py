"""Copy artifacts between two stores, whole and verified on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from partseg.errors import MissingArtifact
from partseg.progress import Progress, Silent
from partseg.store.blobs import at_once, blob_name
from partseg.store.records import Action
from partseg.store.store import Store
from partseg.store.trees import Entry, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What is to be copied.

    Attributes:
        moves: artifacts the target lacks, in the order in which they are committed.
        there: artifacts it has.
        blobs: files it lacks, each content once.
    """

    moves: tuple[tuple[Action, Tree], ...]
    there: tuple[Action, ...]
    blobs: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes to copy."""
        return sum(entry.size for entry in self.blobs)


def plan_transfer(source: Store, target: Store, keys: Iterable[str]) -> Transfer:
    """What it takes to have the artifacts under ``keys`` in the target. Nothing is copied.

    Raises:
        MissingArtifact: the source lacks one of them, or a file of one.
    """
    keys = list(keys)
    theirs = dict(zip(keys, at_once(target.lookup, keys), strict=True))
    moves, there = [], []
    blobs: dict[str, Entry] = {}
    for key in keys:
        before = theirs[key]
        action = source.action(key)
        if action is not None and before == action:
            there.append(action)
            continue
        problems = ["there is no record"] if action is None else source.problems(action)
        if action is None or problems:
            raise MissingArtifact(f"no whole artifact under {key[:12]}: {problems[0]}", where=source.url)
        tree = source.tree(action.tree)
        moves.append((action, tree))
        blobs.update((entry.sha256, entry) for entry in tree.entries)
    sizes = target.files.sizes([blob_name(sha256) for sha256 in blobs])
    missing = [
        entry
        for sha256, entry in blobs.items()
        if sizes[blob_name(sha256)] != entry.size or not target.blobs.seems_sound(sha256)
    ]
    return Transfer(moves=tuple(moves), there=tuple(there), blobs=tuple(missing))


def transfer(source: Store, target: Store, plan: Transfer, *, report: Progress | None = None) -> None:
    """Copy what was planned. Stopped and started again, it goes on with the files that are missing still.

    Every file is hashed on its way. The commits come last, as in a publish.

    Raises:
        MissingArtifact: the source holds a damaged file. The artifacts before it are there.
    """
    report, lock, done = report or Silent(), Lock(), 0
    waiting = {entry.sha256 for entry in plan.blobs}
    with tempfile.TemporaryDirectory(prefix="partseg-", dir=_scratch(target)) as folder:

        def copy(entry: Entry) -> None:
            nonlocal done
            if source.files.local_path("") and not target.files.local_path(""):
                target.blobs.put(entry, source.blobs.local(entry))
            else:  # not from disk to disk by a link, which would tie the two stores together
                path = Path(folder) / entry.sha256
                source.blobs.copy_to(entry, path)
                target.blobs.put(entry, path)
                path.unlink(missing_ok=True)
            with lock:
                done += entry.size
                report.update(done, plan.size, entry.path)

        for action, tree in plan.moves:
            own = {entry.sha256: entry for entry in tree.entries if entry.sha256 in waiting}
            at_once(copy, own.values())
            waiting -= own.keys()
            target.files.write(f"trees/{tree.digest}.json", tree.data)
            target.commit(action)


def copy_artifacts(
    source: Store, target: Store, keys: Iterable[str], *, report: Progress | None = None
) -> Transfer:
    """Copy the artifacts under ``keys``; see :func:`plan_transfer` and :func:`transfer`."""
    plan = plan_transfer(source, target, keys)
    transfer(source, target, plan, report=report)
    return plan


def _scratch(target: Store) -> Path:
    """On a local target, a folder on its own disk: the copies then move in by a link."""
    root = target.files.local_path("tmp") or target.cache / "tmp"
    root.mkdir(parents=True, exist_ok=True)
    return root
