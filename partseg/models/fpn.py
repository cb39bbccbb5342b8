"""The feature pyramid: every level sees what the coarser levels know."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from partseg.models import initialise
from partseg.models.backbones import STRIDES, Backbone


class FeaturePyramid(nn.Module):
    """A pyramid of strides 4 to 64 over a backbone; the level of stride 64 subsamples the one of stride 32.

    Tensor names follow the original checkpoints: ``fpn_lateral2`` belongs to stride 2² = 4.
    """

    strides: Sequence[int] = (*STRIDES, 64)

    def __init__(self, *, bottom_up: Backbone, channels: int) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.channels = channels
        self.names = tuple(str(stride.bit_length() - 1) for stride in STRIDES)
        for name, width in zip(self.names, bottom_up.channels, strict=True):
            lateral = nn.Conv2d(width, channels, kernel_size=1)
            output = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
            initialise.xavier(lateral)
            initialise.xavier(output)
            self.add_module(f"fpn_lateral{name}", lateral)
            self.add_module(f"fpn_output{name}", output)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W], sides divisible by 32: five levels [B, channels, H / stride, W / stride]."""
        merged: Tensor | None = None
        levels: list[Tensor] = []
        for name, feature in zip(reversed(self.names), reversed(self.bottom_up(images)), strict=True):
            lateral = self.get_submodule(f"fpn_lateral{name}")(feature)
            merged = lateral if merged is None else lateral + functional.interpolate(merged, scale_factor=2.0)
            levels.insert(0, self.get_submodule(f"fpn_output{name}")(merged))
        return [*levels, functional.max_pool2d(levels[-1], kernel_size=1, stride=2)]
