"""Raw files: list and check those a person has, or make up a small world in the same format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from partseg.datasets.catalogue import SOURCES, source_module, source_options
from partseg.errors import SourceError
from partseg.synthetic import World, make_up, world_settings
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.params import RawLister, StageParams

VERSION = "1"
SOURCE, LISTING = "source.json", "listing.json"


class Params(StageParams):
    """Which raw files.

    Attributes:
        source: the raw format, a module of :mod:`partseg.datasets`; also the name in ``--raw NAME=DIR``.
        options: that module's ``Options``: which of the files matter, and how they are read.
        synthetic: make the files up instead of taking a person's: the settings of the source's world, see
            :data:`partseg.synthetic.WORLDS`.
    """

    source: str
    options: dict[str, Any] = Field(default_factory=dict)
    synthetic: SerializeAsAny[World] | None = None

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        if source not in SOURCES:
            raise ValueError(f"there is no source {source!r}; there are: {', '.join(SOURCES)}")
        return source

    @field_validator("synthetic", mode="before")
    @classmethod
    def _world(cls, settings: Any, info: ValidationInfo) -> Any:
        source = info.data.get("source")
        if source is None or not isinstance(settings, Mapping):
            return settings
        try:
            return world_settings(source, settings)
        except SourceError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _fits(self) -> Params:
        try:
            source_options(self.source, self.options)
        except SourceError as error:
            raise ValueError(str(error)) from error
        return self

    def raw_source(self) -> str | None:
        """The source's name."""
        return self.source

    def raw_files(self) -> RawLister | None:
        """The files of the source that matter, unless they are made up."""
        if self.synthetic is not None:
            return None
        return partial(source_module(self.source).files, options=source_options(self.source, self.options))


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Write what the source is, and either the list of its files or the made-up files themselves."""
    described = {"source": params.source, "options": params.options}
    (out / SOURCE).write_bytes(orjson.dumps(described, option=orjson.OPT_SORT_KEYS))
    if params.synthetic is None:
        listing = report.listing or ()
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in listing]
        (out / LISTING).write_bytes(orjson.dumps(files, option=orjson.OPT_INDENT_2))
        return {"files": len(listing), "bytes": sum(file.size for file in listing)}
    make_up(params.source, out / "files", params.synthetic, params.options)
    made = [path for path in (out / "files").rglob("*") if path.is_file()]
    return {"files": len(made), "bytes": sum(path.stat().st_size for path in made)}


def described(artifact: Artifact) -> tuple[str, dict[str, Any]]:
    """Source and options of an acquired artifact."""
    content = orjson.loads((artifact.path / SOURCE).read_bytes())
    return content["source"], content["options"]
