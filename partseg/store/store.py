"""The store: publish a directory under a key, look it up, bring it back as a read-only directory."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from partseg.errors import MissingArtifact, StoreError
from partseg.files import sha256_file
from partseg.store.files import open_files
from partseg.store.lease import TTL, Lease
from partseg.store.local_files import link_or_copy
from partseg.store.trees import Entry, Tree, canonical_json, parse_tree, tree_of

log = logging.getLogger(__name__)

STAMP = 1_000_000_000
"""Modification time of every blob on a local disk, in seconds since 1970. A blob that carries another
one was touched after it was stored and is hashed before it is used; an untouched one costs one stat."""

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The commit of one artifact: what was made from what, and how it went.

    Attributes:
        key: sha256 of ``parts``.
        tree: content digest of the artifact.
        parts: what the key was made of, unhashed, so that two keys can be compared.
        facts: everything that is not content: stage, recipe, metrics, seconds, provenance.
    """

    key: str
    tree: str
    parts: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT


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
        self.ttl = ttl

    # -- artifacts ---------------------------------------------------------------------------

    def action(self, key: str) -> Action | None:
        """The commit under ``key``, or None; says nothing about whether its files are whole."""
        try:
            data = self.files.read(f"actions/{key}.json")
        except FileNotFoundError:
            return None
        try:
            return Action(**json.loads(data))
        except (ValueError, TypeError) as error:
            log.warning("damaged record actions/%s.json counts as missing: %s", key, error)
            return None

    def actions(self) -> Iterator[Action]:
        """Every commit."""
        for name in self.files.children("actions"):
            action = self.action(name.removesuffix(".json"))
            if action is not None:
                yield action

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
        found = []
        for entry in tree.entries:
            size = sizes[blob_name(entry.sha256)]
            if size is None:
                found.append(f"{entry.path}: its blob {entry.sha256[:12]} is missing")
            elif size != entry.size:
                found.append(f"{entry.path}: its blob {entry.sha256[:12]} has {size} bytes, not {entry.size}")
            elif not self._sound(entry.sha256, deep=deep):
                found.append(f"{entry.path}: its blob {entry.sha256[:12]} is damaged")
        return found

    def publish(
        self, key: str, directory: Path, *, parts: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> Action:
        """Store a finished directory under ``key``. The caller gives the directory up.

        The commit is written last: whoever is killed before leaves no artifact, only blobs.
        """
        tree = tree_of(directory)
        for entry in tree.entries:
            self._put_blob(entry, directory / entry.path)
        self.files.write(f"trees/{tree.digest}.json", tree.data)
        return self.commit(Action(key=key, tree=tree.digest, parts=parts, facts=facts))

    def commit(self, action: Action) -> Action:
        """Write the record of an artifact whose files are stored already."""
        self.files.write(f"actions/{action.key}.json", canonical_json(asdict(action)))
        return action

    def materialise(self, digest: str) -> Path:
        """A local read-only directory with the content ``digest``; made once, then reused.

        Raises:
            MissingArtifact: a blob is missing, or is not what was stored.
        """
        tree, target = self.tree(digest), self.layout(digest)
        if _is_whole(target, tree):
            with suppress(OSError):
                os.utime(target)  # gc removes first what was not used for longest
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        try:
            for entry in tree.entries:
                path = temporary / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self._local_blob(entry), path)
                _seal(path)
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
        names = [name for name in self.files.children("actions") if name.startswith(prefix)]
        if len(names) != 1:
            count = "no artifact" if not names else f"{len(names)} artifacts"
            raise MissingArtifact(f"{count} with a key that starts with {prefix}", where=self.url)
        action = self.action(names[0].removesuffix(".json"))
        if action is None:
            raise StoreError("the record is damaged", where=f"actions/{names[0]}")
        return action

    # -- names -------------------------------------------------------------------------------

    def set_ref(self, recipe: str, stage: str, key: str) -> None:
        """Remember ``key`` as the last one of a recipe's stage."""
        if self.ref(recipe, stage) != key:
            self.files.write(f"refs/{recipe}/{stage}.json", canonical_json({"key": key}))

    def ref(self, recipe: str, stage: str) -> str | None:
        """The last key of a recipe's stage."""
        try:
            return str(json.loads(self.files.read(f"refs/{recipe}/{stage}.json"))["key"])
        except (FileNotFoundError, ValueError):
            return None

    def refs(self) -> dict[tuple[str, str], str]:
        """(recipe, stage) -> last key, of all recipes."""
        found = {}
        for recipe in self.files.children("refs"):
            for name in self.files.children(f"refs/{recipe}"):
                stage = name.removesuffix(".json")
                key = self.ref(recipe, stage)
                if key is not None:
                    found[recipe, stage] = key
        return found

    def pin(self, key: str) -> None:
        """Keep an artifact whatever happens."""
        self.files.write(f"pins/{key}.json", b"{}")

    def unpin(self, key: str) -> None:
        """Take a pin back."""
        self.files.remove(f"pins/{key}.json")

    def pins(self) -> set[str]:
        """The pinned keys."""
        return {name.removesuffix(".json") for name in self.files.children("pins")}

    def is_sound(self, entry: Entry) -> bool:
        """Whether the blob of a file is there and holds the right bytes; reads it all."""
        size = self.files.size(blob_name(entry.sha256))
        return size == entry.size and self._sound(entry.sha256, deep=True)

    # -- blobs -------------------------------------------------------------------------------

    def _put_blob(self, entry: Entry, source: Path) -> None:
        name = blob_name(entry.sha256)
        local = self.files.local_path(name)
        if self.files.size(name) == entry.size and self._sound(entry.sha256):
            if local is not None:
                os.utime(local, (STAMP, STAMP))  # moves its change time: gc takes it for new
            return
        self.files.put(name, source)
        if local is not None:
            _seal(local)

    def _sound(self, sha256: str, *, deep: bool = False) -> bool:
        """Whether a blob that is there holds the right bytes, as far as is worth looking."""
        local = self.files.local_path(blob_name(sha256))
        if local is not None:
            return (not deep and local.stat().st_mtime == STAMP) or _matches(local, sha256)
        if not deep:
            return True
        with tempfile.TemporaryDirectory(prefix="partseg-") as folder:
            path = Path(folder) / sha256
            self.files.get(blob_name(sha256), path)
            return sha256_file(path) == sha256

    def _local_blob(self, entry: Entry) -> Path:
        """The blob as a local file with the right content."""
        local = self.files.local_path(blob_name(entry.sha256))
        path = local or self.cache / blob_name(entry.sha256)
        if local is None and not path.exists():
            self._download(entry, path)
        if not path.exists() or path.stat().st_size != entry.size:
            raise MissingArtifact(
                f"{entry.path}: its blob {entry.sha256[:12]} is missing or cut short", where=self.url
            )
        if path.stat().st_mtime != STAMP and not _matches(path, entry.sha256):
            raise MissingArtifact(
                f"{entry.path}: its blob {entry.sha256[:12]} is damaged",
                where=path,
                fix="delete that file; the next run builds or fetches it again",
            )
        return path

    def _download(self, entry: Entry, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            with suppress(FileNotFoundError):
                self.files.get(blob_name(entry.sha256), temporary)
            if not temporary.exists() or sha256_file(temporary) != entry.sha256:
                raise MissingArtifact(
                    f"{entry.path}: its blob {entry.sha256[:12]} is missing or damaged",
                    where=self.url,
                    fix="delete it with `partseg store verify --deep --drop`; the next run builds it again",
                )
            temporary.replace(path)
            _seal(path)
        finally:
            temporary.unlink(missing_ok=True)


def blob_name(sha256: str) -> str:
    """Where a blob lies in a store."""
    return f"blobs/{sha256[:2]}/{sha256}"


def _matches(path: Path, sha256: str) -> bool:
    """Hash a blob; if it is sound, stamp it so that this is not done again."""
    if sha256_file(path) != sha256:
        return False
    with suppress(OSError):
        _seal(path)
    return True


def _seal(path: Path) -> None:
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def _is_whole(directory: Path, tree: Tree) -> bool:
    try:
        for entry in tree.entries:
            status = (directory / entry.path).stat()
            if status.st_size != entry.size or status.st_mtime != STAMP:
                return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    return directory.is_dir()


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
