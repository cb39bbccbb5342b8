"""Which images a training sees: a pure function of the seed, the iteration and the batch.

An iteration is one update of the weights, made of several batches. A batch takes one dataset, and of it one
group of like-shaped images. There are two orders:

* ``weighted`` draws with replacement. Dataset d is taken with a probability proportional to
  ratio_d / batch_size_d, so that the shares of images follow the ratios; a group in proportion to what its
  images weigh. The published training fills such batches from one stream of weighted draws
  (``MultiDatasetSampler``); batch for batch the distribution is the same, but here no state is carried along.
* ``epochs`` goes through all images of the one dataset in a new order every time; see
  :mod:`partseg.training.epochs`.

Either way a training goes on at any iteration without having seen those before, and any number of processes
shares the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from partseg.errors import TrainingError
from partseg.training.epochs import Epochs
from partseg.training.pools import Pool, choose, stream

__all__ = ["Pool", "SampleKey", "Steps"]

Order = Literal["weighted", "epochs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """One image of one batch: position of its source, row in the source's split, seed of its augmentation."""

    source: int
    row: int
    seed: int


class Steps:
    """The batches of the iterations ``start`` to ``stop`` - 1 that one process takes, in their order.

    A batch sampler of torch's ``DataLoader``: yields lists of :class:`SampleKey`.

    Args:
        pools: the datasets.
        order: ``weighted`` or ``epochs``; see above.
        seed: of the training.
        start: first iteration.
        stop: behind the last one.
        batches: per iteration, over all processes.
        rank: of this process; it takes the batches rank, rank + world, ...
        world: number of processes.

    Raises:
        TrainingError: ``batches`` cannot be shared equally; ``epochs`` has several datasets or not one full
            batch.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        order: Order,
        seed: int,
        start: int,
        stop: int,
        batches: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batches % world:
            raise TrainingError(
                f"{batches} batches per iteration cannot be shared by {world} processes",
                fix=f"use a number of processes that divides {batches}, or change schedule.batches",
            )
        if order == "epochs" and len(pools) != 1:
            raise TrainingError(
                f"the order 'epochs' needs exactly one dataset, not {len(pools)}",
                fix="use the order 'weighted'",
            )
        self.pools, self.seed = tuple(pools), seed
        self.start, self.stop = start, stop
        self.batches, self.rank, self.world = batches, rank, world
        self._epochs = Epochs(self.pools[0], seed) if order == "epochs" else None
        self._weights = [pool.ratio / pool.batch_size for pool in self.pools]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for iteration in range(self.start, self.stop):
            for number in range(self.rank, self.batches, self.world):
                yield self.batch(iteration, number)

    def __len__(self) -> int:
        return max(0, self.stop - self.start) * (self.batches // self.world)

    def batch(self, iteration: int, number: int) -> list[SampleKey]:
        """The images of batch ``number`` of an iteration."""
        random = stream(self.seed, 0, iteration, number)
        if self._epochs is not None:
            source, rows = 0, self._epochs.batch(iteration * self.batches + number)
        else:
            source = choose(self._weights, random)
            pool = self.pools[source]
            rows = pool.draw(choose(pool.shares, random), random)
        seeds = random.integers(2**63, size=len(rows))
        return [
            SampleKey(source=source, row=row, seed=seed)
            for row, seed in zip(rows.tolist(), seeds.tolist(), strict=True)
        ]
