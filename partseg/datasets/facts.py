"""Published facts about datasets: names, files and counts live in ``data_manifests``, never in code."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import orjson
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from partseg.errors import SourceError
from partseg.validation import faults

FOLDER = Path(__file__).parents[2] / "data_manifests"


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RawSource(_Strict):
    """Where a part of the raw data comes from."""

    name: str
    url: str
    sha256: str | None = None


class Keep(_Strict):
    """Which members of an archive are unpacked, and where.

    Attributes:
        keep: names of files or folders (``*`` allowed). A member is unpacked under the part of its path that
            begins with the first of these names, whatever folders the archive wraps around it; a member
            whose path has none of them is left out.
        into: folder below the raw folder.
    """

    keep: tuple[str, ...] = Field(min_length=1)
    into: RelativePath = "."


class InnerArchive(Keep):
    """What becomes of an archive inside another one.

    Attributes:
        match: the archive's file name (``*`` allowed). ``{stem}`` in ``into`` stands for that name up to its
            first dot.
    """

    match: str


class Unpack(Keep):
    """What becomes of an archive.

    Attributes:
        inner: archives inside this one.
    """

    inner: tuple[InnerArchive, ...] = ()


class RemoteFile(_Strict):
    """One file to get.

    Attributes:
        path: where it goes, below the raw folder; archives go into ``downloads``.
        urls: where it is, in the order in which they are tried; none if a person has to get it.
        bytes: its size, where it is published.
        about_bytes: its rough size, where only that is known.
        sha256: published digest; None if there is none: then that of the first download is noted, and
            every later one compared with it.
        md5: published digest of the weaker kind, where there is no better one.
        checksum_source: who published size and digest.
        unpack: what becomes of an archive; None for a file that stays as it is.
        provides: files and folders that are there afterwards, relative to the raw folder, and the number of
            files in each (1 for a file; None if it is not known).
        optional: only got when asked for by name; what converters read by default is never optional.
        steps: how a person gets it and where it has to be put.
    """

    path: RelativePath
    urls: tuple[str, ...] = ()
    bytes: int | None = Field(default=None, ge=1)
    about_bytes: int | None = Field(default=None, ge=1)
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    checksum_source: str | None = None
    unpack: Unpack | None = None
    provides: dict[RelativePath, int | None] = {}
    optional: bool = False
    steps: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> RemoteFile:
        if bool(self.urls) == bool(self.steps):
            raise ValueError(f"{self.path} needs either urls or steps")
        if (self.sha256 or self.md5 or self.bytes) and self.checksum_source is None:
            raise ValueError(f"{self.path}: checksum_source has to say who published its size and digest")
        if self.unpack is not None and not self.provides:
            raise ValueError(f"{self.path} has to say what it provides")
        if self.bytes is not None and self.about_bytes is not None:
            raise ValueError(f"{self.path}: about_bytes is for a size that is not known exactly")
        return self

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.path).name

    @property
    def size(self) -> int | None:
        """The size in bytes, if need be roughly."""
        return self.bytes or self.about_bytes

    @property
    def results(self) -> dict[str, int | None]:
        """What is there once the file is: :attr:`provides`, or the file itself."""
        return dict(self.provides) or {self.path: 1}


class DataManifest(_Strict):
    """What is known about a source dataset before any of it is read.

    Attributes:
        name: the source's name.
        title: one line for people.
        licence: the terms, in one or two sentences.
        homepage: the publisher's page.
        registration: what has to be agreed to before the files can be had; None if nothing.
        folder: folder below ``<home>/raw``; datasets with the same photos share one. None: the name.
        files: what there is to get; none for a format of people's own files.
        expected: split -> count -> number, as published.
        expected_source: who published those counts.
    """

    name: str
    title: str
    licence: str
    homepage: str
    registration: str | None = None
    folder: RelativePath | None = None
    files: tuple[RemoteFile, ...]
    expected: dict[str, dict[str, int]] = {}
    expected_source: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> DataManifest:
        paths = [file.path for file in self.files]
        if repeated := {path for path in paths if paths.count(path) > 1}:
            raise ValueError(f"{min(repeated)} is listed twice")
        if bool(self.expected) != bool(self.expected_source):
            raise ValueError("expected counts need their source, and the other way round")
        if self.registration is None and any(file.steps for file in self.files):
            raise ValueError("registration has to say why files cannot be downloaded")
        return self

    @property
    def sources(self) -> tuple[RawSource, ...]:
        """Every file with its address."""
        return tuple(
            RawSource(name=file.name, url=file.urls[0] if file.urls else self.homepage, sha256=file.sha256)
            for file in self.files
            if not file.optional
        )


def manifest_names() -> tuple[str, ...]:
    """Names of all datasets there is a manifest of, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def data_manifest(name: str) -> DataManifest:
    """The manifest ``data_manifests/<name>.yaml``.

    Raises:
        SourceError: there is none, or it is not valid.
    """
    path = FOLDER / f"{name}.yaml"
    try:
        manifest = DataManifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(manifest_names())
        raise SourceError(
            f"no manifest for the dataset {name!r}", where=path, fix=f"there are: {known}"
        ) from None
    except (ValidationError, yaml.YAMLError) as error:
        what = faults(error) if isinstance(error, ValidationError) else error
        raise SourceError(f"the manifest is not valid ({what})", where=path) from error
    if manifest.name != name:
        raise SourceError(f"the manifest calls itself {manifest.name!r}", where=path)
    return manifest


def raw_folder(source: str) -> str:
    """Folder of a source's raw files below ``<home>/raw``."""
    return data_manifest(source).folder or source if source in manifest_names() else source


@cache
def category_facts(name: str) -> dict[str, Any]:
    """The content of ``data_manifests/categories/<name>.json``.

    Raises:
        SourceError: there is no such file.
    """
    path = FOLDER / "categories" / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.json")))
        raise SourceError(f"no category table {name!r}", where=path, fix=f"there are: {known}")
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content
