"""Which images a training step sees: a pure function of the seed and the step.

Every step takes one dataset, one of its groups of like-shaped images, and draws a batch from the group with
replacement. Dataset i is taken with a probability proportional to ratio_i / batch_size_i, so that the shares
of images follow the ratios; a group is taken in proportion to its size. The published training fills such
batches from one stream of weighted draws; batch for batch the distribution is the same, but here no state is
carried from step to step, so a training goes on at any step without having seen the steps before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """One image of one step: position of its source, row in the source's split, seed of its augmentation."""

    source: int
    row: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The images of one dataset. ``groups`` hold rows of the split; a batch never mixes two of them."""

    groups: tuple[NDArray[np.int64], ...]
    batch_size: int
    ratio: float


def draw(pools: Sequence[Pool], *, seed: int, step: int) -> list[SampleKey]:
    """The images of one step."""
    random = np.random.default_rng([seed, step])
    source = _choose([pool.ratio / pool.batch_size for pool in pools], random)
    pool = pools[source]
    group = pool.groups[_choose([len(group) for group in pool.groups], random)]
    rows = group[random.integers(len(group), size=pool.batch_size)]
    seeds = random.integers(2**63, size=pool.batch_size)
    return [
        SampleKey(source=source, row=int(row), seed=int(one)) for row, one in zip(rows, seeds, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The batches of the steps ``start`` to ``stop`` - 1, as torch's DataLoader wants them."""

    pools: Sequence[Pool]
    seed: int
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return (draw(self.pools, seed=self.seed, step=step) for step in range(self.start, self.stop))

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


def _choose(weights: Sequence[float], random: np.random.Generator) -> int:
    total = np.cumsum(np.asarray(weights, dtype=np.float64))
    return int(np.searchsorted(total, random.random() * total[-1], side="right").clip(max=len(weights) - 1))
