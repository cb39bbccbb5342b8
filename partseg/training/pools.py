"""The images of one dataset that a training draws from, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The images of one dataset.

    Attributes:
        groups: rows of the split, int64 [G] each; a batch never mixes two groups.
        batch_size: images per batch.
        ratio: share of images, relative to the other datasets' ratios.
        factors: for every group how often each image comes per epoch, or its weight among the dataset's
            images, float64 [G] each, at least 1; None where all come alike.
    """

    groups: tuple[NDArray[np.int64], ...]
    batch_size: int
    ratio: float
    factors: tuple[NDArray[np.float64], ...] | None = None

    @cached_property
    def shares(self) -> list[float]:
        """What the images of each group weigh together."""
        if self.factors is None:
            return [float(len(group)) for group in self.groups]
        return [float(factors.sum()) for factors in self.factors]

    def draw(self, group: int, random: np.random.Generator) -> NDArray[np.int64]:
        """The rows of a batch from a group, with replacement."""
        rows = self.groups[group]
        if self._heights is None:
            return random.choice(rows, size=self.batch_size)
        heights = self._heights[group]
        places = np.searchsorted(heights, random.random(self.batch_size) * heights[-1], side="right")
        drawn: NDArray[np.int64] = np.take(rows, places, mode="clip")
        return drawn

    @cached_property
    def _heights(self) -> list[NDArray[np.float64]] | None:
        return None if self.factors is None else [np.cumsum(factors) for factors in self.factors]


def stream(seed: int, *place: int) -> np.random.Generator:
    """Random numbers of one place in a training."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def choose(weights: Sequence[float], random: np.random.Generator) -> int:
    """A position, each with a probability proportional to its weight."""
    total = np.cumsum(np.asarray(weights, dtype=np.float64))
    return int(np.searchsorted(total, random.random() * total[-1], side="right").clip(max=len(weights) - 1))
