"""Where a predictor's model and classes come from."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partseg.errors import RecipeError, WeightsError
from partseg.files import sha256_file
from partseg.models.checkpoints import load_any
from partseg.models.files import WEIGHTS, ModelCard
from partseg.models.files import Vocabulary as TrainedVocabulary
from partseg.models.vlpart import VLPart
from partseg.predict.prediction import NamedClass
from partseg.vocabulary import ENCODER, Vocabulary, embed, from_names, objects_of, resolve


def load(path: Path) -> tuple[VLPart, ModelCard]:
    """The model of a folder or a file, in evaluation mode."""
    loaded = load_any(path)
    return loaded.model, loaded.card


def weights_digest(path: Path) -> str:
    """The sha256 of a file of weights, or of those in a folder.

    Raises:
        WeightsError: it cannot be read.
    """
    file = path / WEIGHTS if (path / WEIGHTS).is_file() else path
    try:
        return sha256_file(file)
    except OSError as error:
        raise WeightsError("the weights cannot be read", where=file, fix=str(error)) from error


def embedded_classes(
    trained: TrainedVocabulary | None,
    vocabulary: str | None,
    *,
    encoder: str | None,
    weights: Path | None,
    table: Path | None,
    objects: bool = True,
) -> tuple[list[NamedClass], NDArray[np.float32]]:
    """What to look for, and its embeddings [C, D].

    Args:
        trained: what a model was trained with, where it says so: the default of everything else.
        vocabulary: see :func:`partseg.vocabulary.resolve`.
        encoder: see :func:`partseg.vocabulary.encode`.
        weights: the encoder's.
        table: ready embeddings, in place of an encoder.
        objects: also look for the objects of the parts of ``vocabulary`` where it does not name them, so that
            parts find their object. They come last. Not with a model that was trained with parts only, nor
            with a table that lacks one of them.

    Raises:
        RecipeError: no vocabulary, or one that cannot be used.
        WeightsError: the embeddings cannot be had.
    """
    template = trained.template or None if trained else None
    if vocabulary is not None:
        chosen = resolve(vocabulary, template=template)
    elif trained is not None:
        chosen = from_names(trained.names, title="the model's own", template=template)
    elif table is not None:
        chosen = resolve(str(table))
    else:
        raise RecipeError(
            "these weights do not say what to look for",
            fix="give a vocabulary, such as pascal_part or 'dog,dog:head'",
        )
    encoder = encoder or (trained.encoder if trained else ENCODER)
    if encoder.startswith("file:") and table is None and chosen.table is None:
        raise WeightsError(
            f"the model was trained with the embeddings of {encoder.removeprefix('file:')}",
            fix="give a table of embeddings for the vocabulary",
        )
    table = table or chosen.table
    rows = embed(chosen, encoder=encoder, weights=weights, table=table).rows(chosen.names)
    others = objects_of(chosen)
    # What a model that learnt parts alone takes for an object is anything.
    learnt = trained is None or any(":" not in name for name in trained.names)
    if not (objects and learnt and vocabulary is not None and len(others)):
        return _classes(chosen), rows
    try:
        more = embed(others, encoder=encoder, weights=weights, table=table).rows(others.names)
    except WeightsError:
        if table is None:
            raise
        return _classes(chosen), rows
    return _classes(replace(chosen, terms=chosen.terms + others.terms)), np.concatenate([rows, more])


def _classes(vocabulary: Vocabulary) -> list[NamedClass]:
    published = [term.id for term in vocabulary.terms]
    known = [identifier for identifier in published if identifier is not None]
    if len(set(known)) != len(known):  # two vocabularies that number alike
        published, known = [None] * len(published), []
    free = count(max(known, default=0) + 1)
    ids = [next(free) if identifier is None else identifier for identifier in published]
    return [
        NamedClass(
            category_id=category_id, name=term.name, kind=term.kind, owner=-1 if parent is None else parent
        )
        for category_id, term, parent in zip(ids, vocabulary.terms, vocabulary.parents, strict=True)
    ]
