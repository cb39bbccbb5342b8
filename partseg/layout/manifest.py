"""``dataset.json``: the one file a reader opens first, and the check of the format version."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from partseg.errors import FormatTooNew, FormatTooOld, LayoutError
from partseg.layout.schema import FORMAT_VERSION
from partseg.validation import faults

MANIFEST = "dataset.json"
# The oldest release that reads FORMAT_VERSION; written into every dataset so that an older one can name it.
READER = "partseg>=0.1"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """One file of the dataset; ``path`` is relative to the folder of ``dataset.json``."""

    path: str
    rows: int
    bytes: int
    sha256: str


class SplitEntry(_Strict):
    """Files and counts of one split; ``images + dropped == source_records`` always holds.

    Attributes:
        polygons: outlines, where the source has them.
        panoptic: panoptic maps, where the source has them.
        details: what the source says about the split as a whole: licences, names of attributes, ...
    """

    images: FileEntry
    annotations: FileEntry
    findings: FileEntry
    polygons: FileEntry | None = None
    panoptic: FileEntry | None = None
    details: dict[str, Any] = {}
    source_records: int
    dropped: int
    objects: int
    parts: int


class Manifest(_Strict):
    """What ``dataset.json`` says. Content only: no times, hosts or code versions.

    Attributes:
        reader: requirement that installs a partseg able to read this dataset.
        image_source: raw source whose root the file names of the images are relative to.
        origin: "human", or the kind of stage that made the annotations.
        run_id: key of the run that made them; None for a person's work.
        converter: its name and settings.
        findings: how often each reason occurs.
        parents: digests of the datasets this one was derived from.
        expected: counts from the literature, with their source.
    """

    format_version: str
    reader: str
    name: str
    image_source: str
    origin: str
    run_id: str | None
    categories: FileEntry
    splits: dict[str, SplitEntry]
    findings: dict[str, int]
    converter: dict[str, Any]
    sources: list[dict[str, Any]]
    parents: list[str]
    expected: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, a final newline."""
        options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(self.model_dump(mode="json"), option=options)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the dataset in ``folder``.

    Raises:
        LayoutError: there is no dataset, or its manifest is damaged.
        FormatTooNew: a newer major version; names what to install.
        FormatTooOld: an older major version; prints the command that writes the dataset again.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise LayoutError("no dataset here", where=path, fix="name a folder that holds dataset.json")
    try:
        content = orjson.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        newer_minor = _check_version(path, content)
        return Manifest.model_validate(content, extra="ignore" if newer_minor else "forbid")
    except ValueError as error:
        what = faults(error) if isinstance(error, ValidationError) else error
        raise LayoutError(
            f"the manifest is damaged ({what})", where=path, fix="fetch or convert the dataset again"
        ) from error


def _check_version(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether the dataset has a newer minor version, which may hold fields unknown here."""
    version = content.get("format_version")
    try:
        major, minor = (int(number) for number in str(version).split("."))
    except ValueError:
        raise ValueError(f"format_version {version!r} is not of the form 1.0") from None
    own_major, own_minor = (int(number) for number in FORMAT_VERSION.split("."))
    if major > own_major:
        reader = content.get("reader", f"partseg that reads layout format {major}")
        raise FormatTooNew(
            f"the dataset has layout format {version}, this partseg reads {FORMAT_VERSION}",
            where=path,
            fix=f"install one that reads it: pip install '{reader}'",
        )
    if major < own_major:
        converter = content.get("converter")
        name = converter.get("name", "SOURCE") if isinstance(converter, dict) else "SOURCE"
        raise FormatTooOld(
            f"the dataset has layout format {version}, this partseg reads {FORMAT_VERSION}",
            where=path,
            fix=f"upgrade it from its raw files: partseg data convert {name} --raw RAW_DIR --out NEW_DIR",
        )
    if minor > own_minor:
        warnings.warn(
            f"{path}: layout format {version} is newer than {FORMAT_VERSION}; unknown fields are ignored",
            stacklevel=3,
        )
    return minor > own_minor
