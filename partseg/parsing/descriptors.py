"""Dense descriptors of an image from a vision transformer.

A descriptor is the key of one patch in the last attention layer, the heads interleaved. Patches
may overlap: the stride of the patch embedding can be smaller than the patch, and the position
embedding is interpolated to the finer grid. The saliency of a patch is how much the class token
attends to it. This is the recipe of deep ViT features as dense visual descriptors (Amir et al.,
2021), which VLPart's parser uses with DINO ViT-S/8 at stride 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from partseg.errors import WeightsError
from partseg.parsing.config import DescriptorConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the transformer sees in one image of h × w patches.

    Attributes:
        token: class token after the last block, before the final norm, float32 [D].
        descriptors: keys of the last block, float32 [h * w, D], row by row.
        saliency: attention of the class token, 0 to 1, float32 [h * w].
        grid: (h, w).
    """

    token: Tensor
    descriptors: Tensor
    saliency: Tensor
    grid: tuple[int, int]


class Describer:
    """Reads features of images with one transformer.

    Args:
        model: a plain timm vision transformer with a class token and learned positions.
        config: where and how to read.
        device: "cpu", "cuda", ...

    Raises:
        WeightsError: the configuration names attention heads the model does not have.
    """

    def __init__(
        self, model: VisionTransformer, config: DescriptorConfig, *, device: str | torch.device = "cpu"
    ) -> None:
        heads = int(_last_block(model).attn.num_heads)
        if not config.saliency_heads or max(config.saliency_heads) >= heads or min(config.saliency_heads) < 0:
            raise WeightsError(
                f"saliency_heads {list(config.saliency_heads)} do not exist in a model of {heads} heads",
                fix=f"choose from 0 to {heads - 1}",
            )
        self.config = config
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Features]:
        """Features of images of one size.

        Args:
            images: normalised float32 [B, 3, H, W].

        Returns:
            B features, on the device of the model.
        """
        seen = run_blocks(self.model, images.to(self.device), self.config.stride)
        heads = list(self.config.saliency_heads)
        saliency = class_attention(seen.query, seen.key, seen.scale)[:, heads].mean(1)
        return [
            Features(
                token=seen.tokens[i, 0],
                descriptors=seen.keys[i],
                saliency=min_max(saliency[i]),
                grid=seen.grid,
            )
            for i in range(len(images))
        ]

    def foreground(self, features: Features) -> Tensor:
        """Patches the class token attends to, bool [h, w]."""
        return (features.saliency > self.config.saliency_threshold).view(features.grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a forward pass leaves behind.

    Attributes:
        tokens: output of the last block, before the final norm, [B, 1 + h * w, D].
        query: of the last block, [B, heads, 1 + h * w, D / heads].
        key: the same shape.
        scale: what products of the two are multiplied by.
        grid: (h, w).
    """

    tokens: Tensor
    query: Tensor
    key: Tensor
    scale: float
    grid: tuple[int, int]

    @property
    def keys(self) -> Tensor:
        """Keys of the patches, heads interleaved, [B, h * w, D]."""
        return self.key[:, :, 1:].permute(0, 2, 3, 1).flatten(2)


def run_blocks(model: VisionTransformer, images: Tensor, stride: int) -> Seen:
    """Images [B, 3, H, W] through all blocks, with patches ``stride`` pixels apart."""
    tokens, grid = embed_patches(model, images, stride)
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    last = _last_block(model)
    captured: list[Tensor] = []
    handle = last.attn.qkv.register_forward_hook(lambda _module, _inputs, out: captured.append(out))
    try:
        tokens = last(tokens)
    finally:
        handle.remove()
    b, n, _ = captured[0].shape
    qkv = captured[0].reshape(b, n, 3, int(last.attn.num_heads), -1).permute(2, 0, 3, 1, 4)
    return Seen(tokens=tokens, query=qkv[0], key=qkv[1], scale=float(last.attn.scale), grid=grid)


def _last_block(model: VisionTransformer) -> Any:
    """A timm block; timm types its blocks as plain modules."""
    return model.blocks[-1]


def embed_patches(model: VisionTransformer, images: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Tokens with positions, ready for the first block.

    Args:
        model: the transformer.
        images: float32 [B, 3, H, W].
        stride: pixels between patches.

    Returns:
        tokens [B, 1 + h * w, D] and the grid (h, w).
    """
    projection = model.patch_embed.proj
    if model.cls_token is None or model.pos_embed is None:
        raise WeightsError("descriptors need a transformer with a class token and learned positions")
    stem = getattr(model.patch_embed, "stem", None)
    if stem is not None:
        stride = stride // (model.patch_embed.patch_size[0] // projection.kernel_size[0])
        images = stem(images)
    patches = functional.conv2d(images, projection.weight, projection.bias, stride=stride)
    grid = (patches.shape[2], patches.shape[3])
    tokens = torch.cat([model.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
    return tokens + resize_positions(model.pos_embed, grid), grid


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embedding for another grid.

    Args:
        positions: [1, 1 + n * n, D], the class token's first.
        grid: (h, w).

    Returns:
        [1, 1 + h * w, D].
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions
    square = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # DINO adds 0.1 to the size so that rounding down cannot lose a row, and bicubic weights then
    # follow that factor rather than the exact ratio of the sizes.
    factors = [(n + 0.1) / side for n in grid]
    fine = functional.interpolate(
        square, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
    )
    return torch.cat([positions[:, :1], fine.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)], dim=1)


def class_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention of the class token to every patch.

    Args:
        query: [B, heads, 1 + N, D / heads].
        key: the same shape.
        scale: what the products are multiplied by before the softmax.

    Returns:
        [B, heads, N]; rows sum to at most 1, the rest is attention to the class token itself.
    """
    weights = (query[:, :, :1] * scale @ key.mT).softmax(dim=-1)
    return weights[:, :, 0, 1:]


def min_max(values: Tensor) -> Tensor:
    """Values [N] stretched to 0 to 1; all 0 if they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
