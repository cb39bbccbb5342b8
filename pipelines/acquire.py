"""Raw files: list and check those a person has, or make up a small world in the same format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.datasets.convert import source_module, source_options
from partseg.errors import SourceError
from partseg.synthetic import write_imagenet_folder, write_pascal_part
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.params import RawLister, StageParams

VERSION = "1"
SOURCE, LISTING = "source.json", "listing.json"


class PascalPartWorld(BaseModel):
    """How much made-up Pascal-Part data; see :func:`partseg.synthetic.write_pascal_part`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    train: int = Field(ge=1)
    val: int = Field(ge=1)
    size: int = Field(default=128, ge=32)


class ImageFolderWorld(BaseModel):
    """How many made-up images per class; see :func:`partseg.synthetic.write_imagenet_folder`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    per_class: int = Field(ge=1)
    size: int = Field(default=128, ge=32)


class Params(StageParams):
    """Which raw files.

    Attributes:
        source: the raw format, a module of :mod:`partseg.datasets`; also the name in ``--raw NAME=DIR``.
        options: that module's ``Options``: which of the files matter, and how they are read.
        synthetic: make the files up instead of taking a person's.
    """

    source: Literal["pascal_part", "imagenet_folder"]
    options: dict[str, Any] = Field(default_factory=dict)
    synthetic: PascalPartWorld | ImageFolderWorld | None = None

    @model_validator(mode="after")
    def _fits(self) -> Params:
        try:
            source_options(self.source, self.options)
        except SourceError as error:
            raise ValueError(str(error)) from error
        world = PascalPartWorld if self.source == "pascal_part" else ImageFolderWorld
        if self.synthetic is not None and not isinstance(self.synthetic, world):
            raise ValueError(f"synthetic {self.source} takes {', '.join(world.model_fields)}")
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
    _make_up(params, out / "files")
    made = [path for path in (out / "files").rglob("*") if path.is_file()]
    return {"files": len(made), "bytes": sum(path.stat().st_size for path in made)}


def _make_up(params: Params, root: Path) -> None:
    if isinstance(params.synthetic, PascalPartWorld):
        write_pascal_part(root, **params.synthetic.model_dump())
    elif isinstance(params.synthetic, ImageFolderWorld):
        folders = source_options(params.source, params.options).folders()
        write_imagenet_folder(root, classes=folders, **params.synthetic.model_dump())


def described(artifact: Artifact) -> tuple[str, dict[str, Any]]:
    """Source and options of an acquired artifact."""
    content = orjson.loads((artifact.path / SOURCE).read_bytes())
    return content["source"], content["options"]
