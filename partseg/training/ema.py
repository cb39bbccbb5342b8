"""A running mean of the weights, which often detects better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightMean:
    """mean = decay * mean + (1 - decay) * weights, after every update; it starts with the first weights.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, in its exponential
    form. Buffers are averaged like weights; integers are the model's own.

    Args:
        model: whose weights are averaged.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {
            name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()
        }
        self.means = {name: tensor.clone() for name, tensor in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """The weights have changed."""
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 - self.decay)

    @torch.no_grad()
    def load(self, means: Mapping[str, Tensor]) -> None:
        """Go on from saved means."""
        for name, mean in self.means.items():
            mean.copy_(means[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean as its weights meanwhile."""
        kept = {name: tensor.clone() for name, tensor in self.weights.items()}
        self._put(self.means)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self.weights.items():
            tensor.copy_(values[name])
