"""From texts to vectors, by the name of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partseg.errors import RecipeError
from partseg.vocabulary import clip, offline
from partseg.vocabulary.prompts import prompt
from partseg.vocabulary.table import EmbeddingTable


def encode(texts: Sequence[str], encoder: str, *, weights: Path | None = None) -> NDArray[np.float32]:
    """Embed texts.

    Args:
        texts: N texts, already with their prompt around them.
        encoder: ``offline`` or ``offline:<dim>`` (needs no weights, always gives the same vectors), or
            ``open_clip:<model>`` such as ``open_clip:RN50`` (1024 numbers) or ``open_clip:ViT-B-32`` (512),
            with the weights OpenAI published.
        weights: a local file for open_clip; without it open_clip's own download is tried.

    Returns:
        [N, D] float32.

    Raises:
        RecipeError: there is no such encoder.
        WeightsError: the encoder's weights cannot be had.
    """
    kind, _, detail = encoder.partition(":")
    if kind == "offline" and (not detail or (detail.isdecimal() and int(detail) > 0)):
        return offline.encode(texts, dim=int(detail or offline.DIM))
    if kind == "open_clip" and detail:
        return clip.encode(texts, model=detail, weights=weights)
    raise RecipeError(
        f"unknown text encoder {encoder!r}", fix="write offline, offline:128 or open_clip:RN50, for example"
    )


def build_table(
    names: Sequence[str], *, encoder: str, template: str = "a {name}", weights: Path | None = None
) -> EmbeddingTable:
    """Embed category names, each inside ``template``; see :func:`partseg.vocabulary.prompts.prompt`.

    Raises:
        RecipeError: the template has no place for the name, or there is no such encoder.
        WeightsError: a name occurs twice, or the encoder's weights cannot be had.
    """
    texts = [prompt(template, name) for name in names]
    return EmbeddingTable(
        names=tuple(names),
        vectors=encode(texts, encoder, weights=weights),
        encoder=encoder,
        template=template,
    )
