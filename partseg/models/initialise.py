"""How new layers start. The names of the original scheme are kept where the literature knows them."""

from __future__ import annotations

from torch import nn


def xavier(layer: nn.Conv2d | nn.Linear) -> None:
    """Uniform with variance 1 / fan_in, bias 0 (known as c2_xavier_fill)."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def msra(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal with variance 2 / fan_out, bias 0 (known as c2_msra_fill)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Normal with a given deviation, bias 0."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
