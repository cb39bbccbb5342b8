"""Published facts about datasets: names, sources and counts live in ``data_manifests``, never in code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from partseg.errors import SourceError

FOLDER = Path(__file__).parents[2] / "data_manifests"


class RawSource(BaseModel):
    """Where a part of the raw data comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: str
    sha256: str | None = None


class DataManifest(BaseModel):
    """What is known about a source dataset before any of it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    licence: str
    sources: tuple[RawSource, ...]
    expected: dict[str, dict[str, int]] = {}
    expected_source: str | None = None


@cache
def data_manifest(name: str) -> DataManifest:
    """The manifest ``data_manifests/<name>.yaml``.

    Raises:
        SourceError: there is none, or it is not valid.
    """
    path = FOLDER / f"{name}.yaml"
    try:
        return DataManifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SourceError(f"no manifest for the dataset {name!r}", where=path) from None
    except (ValidationError, yaml.YAMLError) as error:
        raise SourceError(f"the manifest is not valid ({error})", where=path) from error


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
