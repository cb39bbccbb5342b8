"""Going through a dataset again and again, each time in a new order.

An epoch is a permutation of the usable images, an image with a repeat factor of 1.3 taken once or, in three
epochs of ten, twice (stochastic rounding: LVIS, arXiv:1908.03195, appendix B.2). Going along it, an image
joins the open batch of its group, and a full batch is the next one. What does not fill a batch is left out.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from partseg.errors import TrainingError
from partseg.training.pools import Pool, stream

Ints = NDArray[np.int64]


class Epochs:
    """The batches of all epochs of one dataset, by their number since the beginning.

    Where repeat factors are fractions, epochs differ in their number of batches. The numbers of the epochs
    passed are remembered; how many batches an epoch has costs one rounding of its factors, not its order.

    Args:
        pool: the dataset.
        seed: of the training.

    Raises:
        TrainingError: no epoch has a full batch.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool, self.seed = pool, seed
        self._factors = pool.factors or tuple(np.ones(len(group)) for group in pool.groups)
        self._whole = all((factors == np.floor(factors)).all() for factors in self._factors)
        self._begins = [0]  # the first batch of every epoch known so far, and of the next one
        self._current: tuple[int, list[Ints]] | None = None
        if not any(np.ceil(factors).sum() >= pool.batch_size for factors in self._factors):
            raise TrainingError(
                f"there are not enough images of one orientation for a batch of {pool.batch_size}",
                fix="use a smaller batch_size",
            )

    def batch(self, number: int) -> Ints:
        """Rows of batch ``number``, counted from the beginning of the training."""
        epoch, begin = self.find(number)
        if self._current is None or self._current[0] != epoch:
            self._current = epoch, self.order(epoch)
        return self._current[1][number - begin]

    def find(self, number: int) -> tuple[int, int]:
        """The epoch of a batch, and the number of that epoch's first batch."""
        if self._whole:
            size = self.size(0)
            return number // size, number // size * size
        while self._begins[-1] <= number:
            self._begins.append(self._begins[-1] + self.size(len(self._begins) - 1))
        epoch = bisect_right(self._begins, number) - 1
        return epoch, self._begins[epoch]

    def size(self, epoch: int) -> int:
        """How many batches an epoch has."""
        return sum(int(times.sum()) // self.pool.batch_size for times in self._repeats(epoch))

    def order(self, epoch: int) -> list[Ints]:
        """The rows of every batch of an epoch, in the order of the batches."""
        repeats = self._repeats(epoch)
        rows = np.concatenate(
            [np.repeat(group, times) for group, times in zip(self.pool.groups, repeats, strict=True)]
        )
        group = np.repeat(np.arange(len(repeats)), [int(times.sum()) for times in repeats])
        shuffled = self._random(epoch, 1).permutation(len(rows))
        rows, group = rows[shuffled], group[shuffled]
        found: list[tuple[int, Ints]] = []
        for one in range(len(repeats)):
            places = np.flatnonzero(group == one)
            places = places[: len(places) // self.pool.batch_size * self.pool.batch_size]
            found += [(int(batch[-1]), rows[batch]) for batch in places.reshape(-1, self.pool.batch_size)]
        return [batch for _, batch in sorted(found, key=lambda item: item[0])]

    def _repeats(self, epoch: int) -> list[Ints]:
        """How often every image of each group comes in an epoch."""
        if self._whole:
            return [factors.astype(np.int64) for factors in self._factors]
        random = self._random(epoch, 0)
        repeats = []
        for factors in self._factors:
            whole = np.floor(factors)
            repeats.append((whole + (random.random(len(factors)) < factors - whole)).astype(np.int64))
        return repeats

    def _random(self, epoch: int, purpose: int) -> np.random.Generator:
        return stream(self.seed, 1, epoch, purpose)
