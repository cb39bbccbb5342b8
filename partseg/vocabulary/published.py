"""Published vocabularies: names, order and prompts, from ``data_manifests/categories/vocabularies``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).parents[2] / "data_manifests" / "categories" / "vocabularies"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Strict):
    """One category.

    Attributes:
        id: its published id.
        name: its name in partseg's datasets, ``object:part`` for a part.
        words: what stands in the prompt, where that is not the name.
        synonyms: as published, where there are other names; no prompt uses them.
    """

    id: int
    name: str
    words: str | None = None
    synonyms: tuple[str, ...] = ()


class Release(_Strict):
    """A published table of embeddings, one row per category.

    Attributes:
        file: its file name.
        encoder: what made it.
        rows: how many rows it has.
        dim: how long they are.
        sha256: of the published file.
        template: of its prompts, where they are not the vocabulary's.
    """

    file: str
    encoder: str
    rows: int
    dim: int
    sha256: str
    template: str | None = None


class Published(_Strict):
    """A published vocabulary.

    Attributes:
        source: who published what.
        template: the prompt around each name; see :func:`partseg.vocabulary.prompts.prompt`.
        aliases: other names it can be asked for by.
        released: ready tables of it.
        categories: in their published order.
    """

    source: str
    template: str
    aliases: tuple[str, ...] = ()
    released: tuple[Release, ...] = ()
    categories: tuple[Entry, ...]


@cache
def published() -> dict[str, Published]:
    """All published vocabularies by name, sorted."""
    return {
        path.stem: Published.model_validate(json.loads(path.read_bytes()))
        for path in sorted(FOLDER.glob("*.json"))
    }


@cache
def canonical() -> dict[str, str]:
    """The names and aliases of published vocabularies, each with the name of its vocabulary."""
    names = {name: name for name in published()}
    return names | {alias: name for name, facts in published().items() for alias in facts.aliases}


def release(file_name: str) -> tuple[str, Release] | None:
    """The vocabulary and the facts of a released table, by the table's file name."""
    return next(
        (
            (name, table)
            for name, facts in published().items()
            for table in facts.released
            if table.file == file_name
        ),
        None,
    )
