"""Text towers of open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.errors import RecipeError, WeightsError

# Which published weights a bare model name stands for.
PUBLISHED = "openai"
TEXTS_AT_ONCE = 256


def encode(texts: Sequence[str], *, model: str, weights: Path | None = None) -> NDArray[np.float32]:
    """Embed texts with the text tower of an open_clip model: [N, D] float32, not normalised.

    Args:
        texts: N texts.
        model: open_clip's name of the model.
        weights: a local checkpoint; without it open_clip downloads the published weights.

    Raises:
        RecipeError: open_clip is not installed, or has no such model.
        WeightsError: the weights cannot be had or do not fit.
    """
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise RecipeError(
            "the encoder open_clip is not installed", fix="pip install 'partseg[text]'"
        ) from error
    if model not in open_clip.list_models():
        raise RecipeError(f"open_clip has no model {model!r}")
    if weights is not None and not weights.is_file():
        raise WeightsError("no such file of open_clip weights", where=weights)
    tower = _tower(open_clip, model, weights)
    tokenizer = open_clip.get_tokenizer(model)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = tokenizer(list(texts[start : start + TEXTS_AT_ONCE]))
            rows.append(tower.encode_text(tokens).float().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def _tower(open_clip: Any, model: str, weights: Path | None) -> Any:
    source = str(weights) if weights is not None else PUBLISHED
    try:
        tower = open_clip.create_model(model, pretrained=source, device="cpu", precision="fp32")
    except Exception as error:  # open_clip passes on whatever its downloader, its reader or torch raises
        raise WeightsError(
            f"the weights of open_clip:{model} cannot be had",
            where=weights,
            fix="give a local file of this model's weights",
        ) from error
    return tower.eval()
