"""The embeddings of a vocabulary: from an encoder and its cache, or from ready tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partseg.errors import WeightsError
from partseg.files import sha256_file
from partseg.vocabulary import cache as cached
from partseg.vocabulary.encoders import encode
from partseg.vocabulary.names import Vocabulary
from partseg.vocabulary.prompts import prompt
from partseg.vocabulary.published import Release, published, release
from partseg.vocabulary.table import EmbeddingTable

ENCODER = "open_clip:RN50"
"""The encoder of VLPart's models: 1024 numbers per name."""


def embed(
    vocabulary: Vocabulary,
    *,
    encoder: str = ENCODER,
    weights: Path | None = None,
    table: Path | None = None,
    cache: Path | None = None,
) -> EmbeddingTable:
    """The embeddings of all names, in their order.

    Rows are as the encoder gave them, of any length, as in VLPart's released tables; a model normalises them.

    Args:
        vocabulary: the names, from :func:`partseg.vocabulary.resolve`.
        encoder: see :func:`partseg.vocabulary.encode`.
        weights: a local file for open_clip.
        table: ready rows instead of an encoder; without it those of the file that the vocabulary came from,
            if it came from one. A .safetensors of partseg; a .npy with a row per name; or one of VLPart's
            released .npy or a folder with some, from which rows are taken by their prompts.
        cache: folder of rows that open_clip made before; ``$PARTSEG_CACHE/texts`` if None.

    Raises:
        RecipeError: there is no such encoder.
        WeightsError: the encoder's weights cannot be had, or the table does not fit the names.
    """
    table = table or vocabulary.table
    if table is not None:
        return _from_table(vocabulary, table)
    prompts = list(dict.fromkeys(vocabulary.prompts))
    if encoder.startswith("open_clip:"):
        rows = _through_cache(prompts, encoder, weights, cache or cached.default_folder())
    else:
        rows = encode(prompts, encoder, weights=weights)
    place = {text: row for row, text in enumerate(prompts)}
    return _table(vocabulary, rows[[place[text] for text in vocabulary.prompts]], encoder)


def _table(
    vocabulary: Vocabulary, rows: NDArray[np.float32], encoder: str, template: str | None = None
) -> EmbeddingTable:
    return EmbeddingTable(
        names=vocabulary.names,
        vectors=rows,
        encoder=encoder,
        template=vocabulary.template if template is None else template,
    )


def _through_cache(
    prompts: list[str], encoder: str, weights: Path | None, folder: Path
) -> NDArray[np.float32]:
    """Rows of the prompts; only those that are not cached are encoded."""
    if weights is not None and not weights.is_file():
        raise WeightsError("no such file of open_clip weights", where=weights)
    path = cached.cache_file(folder, encoder, sha256_file(weights) if weights else "published")
    old = cached.read_rows(path)
    rows = dict(zip(old.names, old.vectors, strict=True)) if old else {}
    if missing := [text for text in prompts if text not in rows]:
        vectors = encode(missing, encoder, weights=weights)
        rows |= dict(zip(missing, vectors, strict=True))
        fresh = EmbeddingTable(names=tuple(missing), vectors=vectors, encoder=encoder, template="{name}")
        try:
            cached.add_rows(path, fresh)
        except OSError as error:
            raise WeightsError(
                f"the cache of embeddings cannot be written ({error.strerror})",
                where=path,
                fix="set PARTSEG_CACHE to another folder",
            ) from error
    return np.stack([rows[text] for text in prompts])


def _from_table(vocabulary: Vocabulary, path: Path) -> EmbeddingTable:
    if path.is_dir():
        return _from_released(vocabulary, sorted(path.glob("*.npy")), path)
    if path.suffix == ".npy":
        known = release(path.name)
        if known is None or path.with_suffix(".txt").is_file():
            ready = EmbeddingTable.load(path, names=vocabulary.names)
            return _table(vocabulary, ready.vectors, ready.encoder)
        name, facts = known
        # pascal_part has a second table with other prompts: who names it wants it.
        if vocabulary.title == name and vocabulary.template in (published()[name].template, facts.template):
            return _table(vocabulary, _released_rows(path, facts), facts.encoder, facts.template)
        return _from_released(vocabulary, [path], path)
    ready = EmbeddingTable.load(path)
    return _table(vocabulary, ready.rows(vocabulary.names), ready.encoder, ready.template)


def _released_rows(path: Path, facts: Release) -> NDArray[np.float32]:
    """All rows of a released table.

    Raises:
        WeightsError: it does not have the published shape.
    """
    rows = EmbeddingTable.load(path, names=[str(row) for row in range(facts.rows)]).vectors
    if rows.shape[1] != facts.dim:
        raise WeightsError(f"shape {rows.shape} instead of {(facts.rows, facts.dim)}", where=path)
    return rows


def _from_released(vocabulary: Vocabulary, paths: list[Path], where: Path) -> EmbeddingTable:
    """Rows from released tables, whichever has the same prompt (CLIP knows no upper case).

    The vocabulary's own tables come first, then the larger ones: one row of pascal_part_base's differs.
    """
    own = vocabulary.title.split("+")
    tables = [(path, *known) for path in paths if (known := release(path.name))]
    tables.sort(key=lambda table: (table[1] not in own, -table[2].rows))
    found: dict[str, NDArray[np.float32]] = {}
    for path, name, facts in tables:
        template = facts.template or published()[name].template
        for entry, row in zip(published()[name].categories, _released_rows(path, facts), strict=True):
            found.setdefault(prompt(template, entry.words or entry.name).lower(), row)
    if not tables:
        raise WeightsError("no table that VLPart released", where=where, fix="give its datasets/metadata")
    if missing := [term for term in vocabulary.terms if term.prompt.lower() not in found]:
        raise WeightsError(
            f"{len(missing)} of {len(vocabulary)} prompts are in no released table,"
            f" first {missing[0].prompt!r}",
            where=where,
            fix="use an encoder for them",
        )
    rows = np.stack([found[text.lower()] for text in vocabulary.prompts])
    return _table(vocabulary, rows, tables[0][2].encoder)
