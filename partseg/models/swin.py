"""Swin Transformers as detectors use them: images of any size, and every level normalised.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. The layers
are timm's. Three things differ from timm's network, as in the original code for detection: a level whose
sides are no multiple of the window is padded before its windows are shifted, not after; a stage ends (instead
of starting) with the merging of patches; and each of the four levels has a LayerNorm of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional

from partseg.models.backbones import Backbone, create, load_tensors, read_tensors


class SwinBackbone(Backbone):
    """A Swin Transformer that returns its levels of strides 4 to 32.

    Tensor names follow the original checkpoints.

    Args:
        name: timm's name of the network, ``swin_*``.
        frozen_stages: how many stages get no gradient; the first one contains the patch embedding.
        drop_path: the chance, in training, that a residual branch of the last block is left out; it grows
            linearly from 0 in the first block.
    """

    def __init__(self, *, name: str, frozen_stages: int, drop_path: float) -> None:
        super().__init__()
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

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] to four levels [B, C, H / stride, W / stride], finest first."""
        levels = []
        x = self.patch_embed(images)
        for level, stage in enumerate(self.layers):
            for block in stage.blocks:
                x = x + block.drop_path1(_attention(block, block.norm1(x)))
                x = x + block.drop_path2(block.mlp(block.norm2(x)))
            levels.append(self.get_submodule(f"norm{level}")(x).permute(0, 3, 1, 2))
            x = stage.downsample(x)
        return levels

    def load(self, path: Path) -> None:
        """Take pretrained weights from a .safetensors or tensors-only .pth file.

        Both timm's names and those of the original Swin Transformer are understood. Classification weights
        carry no norms of the four levels: these keep their value.

        Raises:
            WeightsError: the file cannot be read, or a tensor of the backbone is missing or has another
                shape.
        """
        given = read_tensors(path)
        if "layers.0.downsample.reduction.weight" not in given:  # timm counts the merging to the next stage
            given = {
                re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): t
                for name, t in given.items()
            }
        load_tensors(self, given, where=path, optional="norm")


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
