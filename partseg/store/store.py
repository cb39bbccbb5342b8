"""The store: publish a directory under a key, look it up, bring it back as a read-only directory."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partseg.errors import MissingArtifact, StoreError
from partseg.store.blobs import STAMP, Blobs, at_once, blob_name, is_true, note, seal
from partseg.store.files import open_files
from partseg.store.lease import TTL, Lease
from partseg.store.local_files import link_or_copy
from partseg.store.records import Action, decode, encode
from partseg.store.trees import Entry, Tree, canonical_json, parse_tree, tree_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A name for an artifact that somebody wants to keep.

    Attributes:
        name: of the pin.
        key: of the artifact.
        since: when it was set, UTC; empty if not known.
    """

    name: str
    key: str
    since: str = ""


class Store:
    """Finished artifacts under ``url``.

    Args:
        url: a local path, ``file://...`` or any fsspec URL.
        cache: local folder for materialised directories and downloaded blobs.
        ttl: seconds without a beat after which the holder of a key counts as dead.
    """

    def __init__(self, url: str | Path, *, cache: Path, ttl: float = TTL) -> None:
        self.files = open_files(str(url))
        self.url = self.files.url
        self.cache = cache.expanduser().absolute()
        self.blobs = Blobs(self.files, self.cache)
        self.ttl = ttl

    # -- artifacts ---------------------------------------------------------------------------

    def action(self, key: str) -> Action | None:
        """The commit under ``key``, or None; says nothing about whether its files are whole."""
        try:
            return decode(self.files.read(f"actions/{key}.json"), key)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("damaged record actions/%s.json counts as missing: %s", key, error)
            return None

    def keys(self) -> list[str]:
        """The key of every commit, sorted."""
        return [name.removesuffix(".json") for name in self.files.children("actions")]

    def actions(self, keys: Iterable[str] | None = None) -> Iterator[Action]:
        """Every commit, or those under ``keys``; several are read at the same time."""
        found = at_once(self.action, self.keys() if keys is None else keys)
        return (action for action in found if action is not None)

    def tree(self, digest: str) -> Tree:
        """The list of files of an artifact; raises :class:`StoreError` when missing or damaged."""
        try:
            return parse_tree(self.files.read(f"trees/{digest}.json"), digest)
        except FileNotFoundError:
            raise StoreError("the list of files is missing", where=f"trees/{digest}.json") from None

    def lookup(self, key: str) -> Action | None:
        """The commit under ``key`` if every file of it is there; None means: build it (again)."""
        action = self.action(key)
        if action is None:
            return None
        problems = self.problems(action)
        for problem in problems:
            log.warning("artifact %s counts as missing: %s", key[:12], problem)
        return None if problems else action

    def problems(self, action: Action, *, deep: bool = False) -> list[str]:
        """What is wrong with the files of an artifact; empty when it is whole.

        Sizes are compared, and the content of every local blob that was touched since it was
        stored. ``deep`` compares the content of all.
        """
        try:
            tree = self.tree(action.tree)
        except StoreError as error:
            return [str(error)]
        sizes = self.files.sizes(list({blob_name(entry.sha256) for entry in tree.entries}))

        def problem(entry: Entry) -> str | None:
            size, text = sizes[blob_name(entry.sha256)], f"{entry.path}: its blob {entry.sha256[:12]}"
            if size is None:
                return f"{text} is missing"
            if size != entry.size:
                return f"{text} has {size} bytes, not {entry.size}"
            sound = self.blobs.is_sound(entry) if deep else self.blobs.seems_sound(entry.sha256)
            return None if sound else f"{text} is damaged"

        found = at_once(problem, tree.entries) if deep else [problem(entry) for entry in tree.entries]
        return [text for text in found if text is not None]

    def publish(
        self, key: str, directory: Path, *, parts: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> Action:
        """Store a finished directory under ``key``. The caller gives the directory up.

        The commit is written last: whoever is killed before leaves no artifact, only blobs.
        """
        tree = tree_of(directory)
        at_once(lambda entry: self.blobs.put(entry, directory / entry.path), _each_once(tree))
        self.files.write(f"trees/{tree.digest}.json", tree.data)
        return self.commit(Action(key=key, tree=tree.digest, parts=parts, facts=facts))

    def commit(self, action: Action) -> Action:
        """Write the record of an artifact whose files are stored already."""
        self.files.write(f"actions/{action.key}.json", encode(action))
        return action

    def materialise(self, digest: str) -> Path:
        """A local read-only directory with the content ``digest``; made once, then reused.

        Every file of it was hashed by this process: nothing damaged is handed out.

        Raises:
            MissingArtifact: a blob is missing, or is not what was stored; such a one is removed.
        """
        tree, target = self.tree(digest), self.layout(digest)
        if _is_whole(target, tree):
            with suppress(OSError):
                os.utime(target)  # gc removes first what was not used for longest
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        try:
            at_once(self.blobs.local, _each_once(tree))
            for entry in tree.entries:
                path = temporary / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self.blobs.local(entry), path)
                seal(path)
                note(path, entry.sha256)
            _replace_directory(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def layout(self, digest: str) -> Path:
        """Where :meth:`materialise` lays out the content ``digest``."""
        return self.cache / "trees" / digest

    def lease(self, key: str, *, waiting: Callable[[str], None] | None = None) -> Lease:
        """The right to build ``key``; see :class:`partseg.store.lease.Lease`."""
        return Lease(self.files, key, ttl=self.ttl, waiting=waiting)

    def remove(self, key: str) -> None:
        """Forget an artifact. Its blobs stay until gc finds that nobody else uses them."""
        self.files.remove(f"actions/{key}.json")

    def find(self, prefix: str) -> Action:
        """The one artifact whose key starts with ``prefix``."""
        keys = [key for key in self.keys() if key.startswith(prefix)]
        if len(keys) != 1:
            count = "no artifact" if not keys else f"{len(keys)} artifacts"
            raise MissingArtifact(f"{count} with a key that starts with {prefix}", where=self.url)
        action = self.action(keys[0])
        if action is None:
            raise StoreError("the record is damaged", where=f"actions/{keys[0]}.json")
        return action

    # -- names -------------------------------------------------------------------------------

    def set_ref(self, recipe: str, stage: str, key: str) -> None:
        """Remember ``key`` as the last one of a recipe's stage."""
        if self.ref(recipe, stage) != key:
            self.files.write(f"refs/{recipe}/{stage}.json", canonical_json({"key": key}))

    def ref(self, recipe: str, stage: str) -> str | None:
        """The last key of a recipe's stage."""
        return self._named(f"refs/{recipe}/{stage}.json")

    def refs(self) -> dict[tuple[str, str], str]:
        """(recipe, stage) -> last key, of all recipes."""
        names = [
            (recipe, name.removesuffix(".json"))
            for recipe in self.files.children("refs")
            for name in self.files.children(f"refs/{recipe}")
        ]
        keys = at_once(lambda name: self.ref(*name), names)
        return {name: key for name, key in zip(names, keys, strict=True) if key is not None}

    def pin(self, name: str, key: str, *, since: str = "") -> None:
        """Keep an artifact, and what it was made from, whatever happens.

        Raises:
            StoreError: the name stands for another artifact.
        """
        before = self._named(f"pins/{name}.json")
        if before not in (None, key):
            raise StoreError(
                f"the pin {name} is on {str(before)[:12]} already", where=self.url, fix="unpin it first"
            )
        self.files.write(f"pins/{name}.json", canonical_json({"key": key, "since": since}))

    def unpin(self, name: str) -> None:
        """Take a pin back; raises :class:`StoreError` when there is none of that name."""
        if self.files.size(f"pins/{name}.json") is None:
            raise StoreError(f"there is no pin {name}", where=self.url)
        self.files.remove(f"pins/{name}.json")

    def pins(self) -> dict[str, Pin]:
        """Name -> pin."""
        names = [name.removesuffix(".json") for name in self.files.children("pins")]
        found = zip(names, at_once(self._pin, names), strict=True)
        return {name: pin for name, pin in found if pin is not None}

    def _pin(self, name: str) -> Pin | None:
        try:
            data = json.loads(self.files.read(f"pins/{name}.json"))
            # A pin used to have no name but the key.
            return Pin(name=name, key=str(data.get("key", name)), since=str(data.get("since", "")))
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError):
            raise StoreError(
                f"the pin {name} is damaged", where=self.url, fix="unpin it and pin the artifact again"
            ) from None

    def _named(self, file: str) -> str | None:
        try:
            return str(json.loads(self.files.read(file))["key"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def _each_once(tree: Tree) -> list[Entry]:
    """One entry for every content: two threads shall not write the same blob."""
    return list({entry.sha256: entry for entry in tree.entries}.values())


def _is_whole(directory: Path, tree: Tree) -> bool:
    """Whether a laid-out directory holds what it should, every byte of it."""
    try:
        for entry in tree.entries:
            status = (directory / entry.path).stat()
            if status.st_size != entry.size or status.st_mtime != STAMP:
                return False
        return directory.is_dir() and all(
            at_once(lambda entry: is_true(directory / entry.path, entry.sha256), tree.entries)
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _replace_directory(source: Path, target: Path) -> None:
    """Rename onto ``target``. A whole one put there meanwhile by somebody else is as good."""
    source.chmod(0o755)
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        target.replace(old)
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):
        source.rename(target)
    if not target.is_dir():
        raise StoreError("the artifact cannot be laid out", where=target)


__all__ = ["Action", "Pin", "Store", "blob_name"]
