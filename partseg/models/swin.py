"""Swin Transformers as detectors use them: images of any size, and every level normalised.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. The layers
are timm's. Three things differ from timm's network, as in the original code for detection: a level whose
sides are no multiple of the window is padded before its windows are shifted, not after; a stage ends (instead
of starting) with the merging of patches; and each of the four levels has a LayerNorm of its own.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from partseg.models.backbones import Backbone, create


class SwinBackbone(Backbone):
    """A Swin Transformer that returns its levels of strides 4 to 32.

    Tensor names follow the original checkpoints.

    Args:
        name: timm's name of the network, ``swin_*``.
        frozen_stages: how many stages get no gradient; the first one contains the patch embedding.
        drop_path: the chance, in training, that a residual branch of the last block is left out; it grows
            linearly from 0 in the first block.
    """

    own = ("norm0.", "norm1.", "norm2.", "norm3.")

    def __init__(self, *, name: str, frozen_stages: int, drop_path: float) -> None:
        super().__init__()
        self.recomputes = False
        # always_partition: else the small maps of the size timm has in mind get no shifted windows.
        base: Any = create(
            name, strict_img_size=False, always_partition=True, drop_path_rate=drop_path, num_classes=0
        )
        self.patch_embed, self.layers = base.patch_embed, base.layers
        for stage, following in zip(self.layers[:-1], self.layers[1:], strict=True):
            stage.downsample = following.downsample
        self.layers[-1].downsample = nn.Identity()
        self.channels = tuple(int(info["num_chs"]) for info in base.feature_info)
        for level, channels in enumerate(self.channels):
            self.add_module(f"norm{level}", nn.LayerNorm(channels))
        if frozen_stages:
            for frozen in (self.patch_embed, *(stage.blocks for stage in self.layers[:frozen_stages])):
                frozen.requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """This module itself."""
        return self

    def recompute_activations(self, on: bool) -> None:
        """See :meth:`Backbone.recompute_activations`; of each block only the input is kept."""
        self.recomputes = on

    def forward(self, images: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.forward`."""
        levels = []
        x = self.patch_embed(images)
        for level, stage in enumerate(self.layers):
            for block in stage.blocks:
                if self.recomputes and torch.is_grad_enabled() and _learns(block, x):
                    x = checkpoint(_block, block, x, use_reentrant=False)
                else:
                    x = _block(block, x)
            levels.append(self.get_submodule(f"norm{level}")(x).permute(0, 3, 1, 2))
            x = stage.downsample(x)
        return levels


def _block(block: Any, x: Tensor) -> Tensor:
    """One block of a stage, [B, H, W, C] to [B, H, W, C]."""
    x = x + block.drop_path1(_attention(block, block.norm1(x)))
    return cast(Tensor, x + block.drop_path2(block.mlp(block.norm2(x))))


def _learns(block: nn.Module, x: Tensor) -> bool:
    """Whether anything has to be kept of a block for a backward pass."""
    return x.requires_grad or any(parameter.requires_grad for parameter in block.parameters())


def _attention(block: Any, x: Tensor) -> Tensor:
    """Attention [B, H, W, C] within the windows of a block, shifted where the block shifts."""
    height, width = x.shape[1], x.shape[2]
    rows, columns = block.window_size
    x = functional.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    padded_height, padded_width = x.shape[1], x.shape[2]
    down, right = block.shift_size
    mask = None
    if down or right:
        x = torch.roll(x, shifts=(-down, -right), dims=(1, 2))
        mask = block.get_attn_mask(x)
    windows = block.attn(window_partition(x, (rows, columns)).flatten(1, 2), mask=mask)
    windows = windows.unflatten(1, (rows, columns))
    x = window_reverse(windows, (rows, columns), padded_height, padded_width)
    if down or right:
        x = torch.roll(x, shifts=(down, right), dims=(1, 2))
    return x[:, :height, :width]
