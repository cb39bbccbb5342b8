"""A text encoder without weights, for tests, demos and machines without a network.

A text is a bag of words and of three-letter pieces of words. Each of them has its own fixed direction, made
from a hash; a text points where the sum of its pieces points. So 'dog leg' and 'cat leg' are as near as their
common word makes them, a plural is near its singular, and the same text has the same vector everywhere and
always.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DIM = 512
SEED = "partseg-offline-1"
WORD, PIECE = 1.0, 0.25
# Words that every prompt contains say nothing about the category.
FILLING = frozenset({"a", "an", "the", "of", "in", "photo", "picture", "image"})
FILLING_WEIGHT = 0.02


def encode(texts: Sequence[str], *, dim: int = DIM) -> NDArray[np.float32]:
    """Embed texts as unit vectors [N, dim] float32 (a text without a letter or digit is all zeros)."""
    return np.stack([_embed(text, dim) for text in texts]) if texts else np.zeros((0, dim), np.float32)


def _embed(text: str, dim: int) -> NDArray[np.float32]:
    total = np.zeros(dim)
    for feature, weight in sorted(_features(text).items()):
        total += weight * _direction(feature, dim)
    length = float(np.sqrt((total * total).sum()))
    return (total / length if length else total).astype(np.float32)


def _features(text: str) -> dict[str, float]:
    features: dict[str, float] = defaultdict(float)
    for word in re.findall(r"[^\W_]+", text.lower()):
        if word in FILLING:
            features[f"word {word}"] += FILLING_WEIGHT
            continue
        features[f"word {word}"] += WORD
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            features[f"piece {padded[start : start + 3]}"] += PIECE
    return features


@lru_cache(maxsize=65536)
def _direction(feature: str, dim: int) -> NDArray[np.float64]:
    """Signs [dim] from a hash: independent of any random generator's version."""
    digest = hashlib.shake_256(f"{SEED} {feature}".encode()).digest(-(-dim // 8))
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:dim]
    return bits.astype(np.float64) * 2 - 1
