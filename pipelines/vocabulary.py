"""Category names → text embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import field_validator, model_validator

from partseg.vocabulary import EmbeddingTable, encode, published, resolve
from partseg.vocabulary.prompts import prompt
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import open_dataset
from pipelines.params import RawLister, Ref, StageParams
from pipelines.problems import suggestion

VERSION = "1"
FILE = "embeddings.safetensors"


class Params(StageParams):
    """What to embed, and with what.

    Local files are named relative to the raw folder ``weights`` (``--raw weights=DIR``).

    Attributes:
        published: published vocabularies (``partseg vocabulary list``), with their own prompts.
        data: datasets whose category names are embedded.
        names: further names.
        encoder: see :func:`partseg.vocabulary.encode`.
        template: the prompt around each name of ``data`` and ``names``; the published models use "a {words}".
        weights: a local file with the encoder's weights; without it open_clip downloads them.
        table: a ready table instead of an encoder: .safetensors, or .npy with one row per name.
    """

    published: tuple[str, ...] = ()
    data: tuple[Ref, ...] = ()
    names: tuple[str, ...] = ()
    encoder: str = "open_clip:RN50"
    template: str = "a {words}"
    weights: str | None = None
    table: str | None = None

    @field_validator("published")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in (known := list(published())):
                raise ValueError(f"no vocabulary {name!r} is published; {suggestion(name, known)}")
        return names

    @model_validator(mode="after")
    def _one_origin(self) -> Params:
        if self.weights and self.table:
            raise ValueError("give weights for an encoder or a ready table, not both")
        return self

    def raw_source(self) -> str | None:
        """Local files come from the raw folder ``weights``."""
        return "weights" if self.weights or self.table else None

    def raw_files(self) -> RawLister | None:
        """The local file, if one is used: its content enters the key."""
        wanted = [name for name in (self.weights, self.table) if name]
        return (lambda root: wanted) if wanted else None


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Embed every name once, in the order of first mention, with its first prompt."""
    datasets = [open_dataset(inputs[ref]) for ref in params.data]
    named = [category.name for dataset in datasets for category in dataset.categories]
    terms = resolve("+".join(params.published)).terms if params.published else ()
    prompts = {term.name: term.prompt for term in terms}
    for name in (*named, *params.names):
        prompts.setdefault(name, prompt(params.template, name))
    names = tuple(prompts)
    folder = report.raw_root or Path()
    if params.table:
        ready = EmbeddingTable.load(folder / params.table, names=names)
        table = EmbeddingTable(
            names=names, vectors=ready.rows(names), encoder=ready.encoder, template=ready.template
        )
    else:
        report.update(0, len(names), f"names through {params.encoder}")
        weights = folder / params.weights if params.weights else None
        vectors = encode(list(prompts.values()), params.encoder, weights=weights)
        table = EmbeddingTable(names=names, vectors=vectors, encoder=params.encoder, template=params.template)
    table.save(out / FILE)
    report.update(len(names), len(names), "names embedded")
    return {"names": len(table.names), "dim": table.dim}


def load_table(artifact: Artifact) -> EmbeddingTable:
    """The table a vocabulary stage wrote."""
    return EmbeddingTable.load(artifact.path / FILE)
