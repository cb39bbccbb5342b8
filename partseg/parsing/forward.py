"""A forward pass through any of timm's plain vision transformers, as dense descriptors need it.

All blocks but the last are timm's own. Of the last one a descriptor needs the keys of the patches, and a
saliency the attention of the class token; its output is needed for the class token only. So that block is
taken apart here, and the products of all patches with all others are never made in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor
from torch.nn import functional

from partseg.errors import WeightsError

Transformer = VisionTransformer | Eva


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a forward pass leaves behind of images of h × w patches.

    Attributes:
        token: class token after the last block, before the final norm, [B, D].
        keys: of the patches in the last block, the heads interleaved, [B, h * w, D]. After a norm of keys, if
            the model has one, and before any rotation by position.
        attention: of the class token to every patch in the last block, [B, heads, h * w]; rows sum to at most
            1, the rest is attention to the class token itself and to registers.
        grid: (h, w).
    """

    token: Tensor
    keys: Tensor
    attention: Tensor
    grid: tuple[int, int]


def check_model(model: Any) -> None:
    """Refuse models that :func:`run_blocks` cannot run.

    Raises:
        WeightsError: the model is no plain vision transformer or has no class token.
    """
    if type(model) not in (VisionTransformer, Eva) or type(model.patch_embed) is not PatchEmbed:
        raise WeightsError(
            "the model is no plain vision transformer of one size of patches",
            fix="choose one of timm's, such as vit_small_patch8_224 or vit_small_patch14_dinov2",
        )
    if model.cls_token is None:
        raise WeightsError(
            "the transformer has no class token, by which images are compared and patches told salient",
            fix="choose one with a class token, such as vit_small_patch8_224 or vit_small_patch14_dinov2",
        )
    last = _last_block(model)
    attention = getattr(last, "attn", None)
    if type(last) not in (Block, EvaBlock) or type(attention) not in (Attention, AttentionRope, EvaAttention):
        raise WeightsError(
            f"blocks such as timm's {type(last).__name__} with {type(attention).__name__} are not understood",
            fix="choose a plain transformer, such as vit_small_patch8_224 or vit_small_patch14_dinov2",
        )


def check_stride(model: Transformer, stride: int) -> None:
    """Refuse distances of patches that a model does not take.

    Raises:
        WeightsError: naming those that it takes.
    """
    patch, step = model.patch_embed.patch_size[0], _shrinking(model)
    strides = [s for s in range(step, patch + 1, step) if patch % s == 0]
    if stride not in strides:
        raise WeightsError(
            f"patches of {patch} pixels cannot be {stride} pixels apart",
            fix=f"set the stride to one of {', '.join(map(str, strides))}",
        )
    if stride != patch and _counts_patches(model):
        raise WeightsError(
            "the transformer knows places by counting patches, so they cannot overlap",
            fix=f"set the stride to the patch size, {patch}",
        )


def head_count(model: Transformer) -> int:
    """Attention heads of the last block."""
    return int(_last_block(model).attn.num_heads)


def _counts_patches(model: Transformer) -> bool:
    """Whether rotations are by row and column rather than by the place in the image."""
    rope = getattr(model, "rope", None)
    if rope is None or getattr(rope, "normalize_coords", None) is not None:
        return False
    return getattr(rope, "ref_feat_shape", None) is None


def _shrinking(model: Transformer) -> int:
    """How much smaller the convolutions in front of the patches make an image; 1 without any."""
    return int(model.patch_embed.patch_size[0] // model.patch_embed.proj.kernel_size[0])


def run_blocks(model: Transformer, images: Tensor, stride: int) -> Seen:
    """Images [B, 3, H, W] through all blocks, with patches ``stride`` pixels apart."""
    tokens, grid = embed_patches(model, images, stride)
    rotations = _rotations(model, grid)
    for block, rotation in zip(model.blocks[:-1], rotations, strict=False):
        tokens = block(tokens) if rotation is None else block(tokens, rope=rotation)
    return _run_last(_last_block(model), tokens, rotations[-1], grid)


def _last_block(model: Transformer) -> Any:
    """A timm block; timm types its blocks as plain modules."""
    return model.blocks[-1]


def _rotations(model: Transformer, grid: tuple[int, int]) -> list[Tensor | None]:
    """What queries and keys of the patches are turned by in each block."""
    rope: Any = getattr(model, "rope", None)
    if rope is None:
        return [None] * len(model.blocks)
    turned = rope.get_embed(shape=list(grid))
    return list(turned) if model.rope_mixed else [turned] * len(model.blocks)


def _run_last(block: Any, tokens: Tensor, rotation: Tensor | None, grid: tuple[int, int]) -> Seen:
    attn = block.attn
    normed = block.norm1(tokens)
    first = normed[:, :1]
    query = attn.q_norm(_heads(_projected(attn, first, 0), attn.num_heads))
    key = attn.k_norm(_heads(_projected(attn, normed, 1), _key_heads(attn)))
    value = _heads(_projected(attn, normed, 2), _key_heads(attn))
    patches = tokens.shape[1] - grid[0] * grid[1]  # the first of them
    keys = key[:, :, patches:].permute(0, 2, 3, 1).flatten(2)
    if rotation is not None:
        turned = apply_rot_embed_cat(key[:, :, patches:], rotation, half=attn.rotate_half)
        key = torch.cat([key[:, :, :patches], turned], dim=2)
    repeats = attn.num_heads // _key_heads(attn)
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    attention = (query * attn.scale @ key.mT).softmax(dim=-1)
    mixed = attn.norm((attention @ value).transpose(1, 2).flatten(2))
    gate = getattr(attn, "gate", None)
    if gate is not None:
        mixed = mixed * gate(first).sigmoid()
    token = tokens[:, :1] + _scaled(block, 1, attn.proj(mixed))
    token = token + _scaled(block, 2, block.mlp(block.norm2(token)))
    return Seen(token=token[:, 0], keys=keys, attention=attention[:, :, 0, patches:], grid=grid)


def _projected(attn: Any, normed: Tensor, facet: int) -> Tensor:
    """Queries (0), keys (1) or values (2) of tokens [B, N, D]."""
    if attn.qkv is None:
        projection: Tensor = (attn.q_proj, attn.k_proj, attn.v_proj)[facet](normed)
        return projection
    weight, bias = attn.qkv.weight.chunk(3)[facet], attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:
        bias = (attn.q_bias, attn.k_bias, attn.v_bias)[facet]
    elif bias is not None:
        bias = bias.chunk(3)[facet]
    return functional.linear(normed, weight, bias)


def _key_heads(attn: Any) -> int:
    """Heads of keys and values; fewer than of queries where several queries share them."""
    return int(getattr(attn, "num_kv_heads", attn.num_heads))


def _heads(values: Tensor, heads: int) -> Tensor:
    """[B, N, D] as [B, heads, N, D / heads]."""
    return values.reshape(*values.shape[:2], heads, -1).transpose(1, 2)


def _scaled(block: Any, branch: int, values: Tensor) -> Tensor:
    """The output of the first or second branch of a block, times its layer scale if it has one."""
    if isinstance(block, EvaBlock):
        gamma = getattr(block, f"gamma_{branch}")
        return values if gamma is None else gamma * values
    scaled: Tensor = getattr(block, f"ls{branch}")(values)
    return scaled


def embed_patches(model: Transformer, images: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Tokens with learned positions, ready for the first block.

    Args:
        model: the transformer.
        images: float32 [B, 3, H, W].
        stride: pixels between patches.

    Returns:
        tokens [B, T + h * w, D] and the grid (h, w); the first T are the class token and registers.
    """
    embed = model.patch_embed
    projection = embed.proj
    stem = getattr(embed, "stem", None)
    if stem is not None:
        images = stem(images)
    patches = functional.conv2d(images, projection.weight, projection.bias, stride // _shrinking(model))
    grid = (patches.shape[2], patches.shape[3])
    tokens = embed.norm(patches.flatten(2).mT)
    special = [t.expand(len(images), -1, -1) for t in (model.cls_token, model.reg_token) if t is not None]
    if model.pos_embed is None:
        return model.norm_pre(torch.cat([*special, tokens], dim=1)), grid
    if model.no_embed_class:
        placed = tokens + resize_positions(model.pos_embed, grid, embed.grid_size, 0)
        tokens = torch.cat([*special, placed], dim=1)
    else:
        tokens = torch.cat([*special, tokens], dim=1)
        count = sum(token.shape[1] for token in special)
        tokens = tokens + resize_positions(model.pos_embed, grid, embed.grid_size, count)
    return model.norm_pre(tokens), grid


def resize_positions(
    positions: Tensor, grid: tuple[int, int], native: tuple[int, int], special: int
) -> Tensor:
    """Position embedding for another grid.

    Args:
        positions: [1, special + n * m, D].
        grid: (h, w).
        native: (n, m), the grid they were learned for.
        special: how many of them are of no patch; they come first and stay.

    Returns:
        [1, special + h * w, D].
    """
    if grid == native:
        return positions
    square = positions[:, special:].reshape(1, *native, -1).permute(0, 3, 1, 2)
    # DINO's own rule: the sizes are made a little larger so that rounding down cannot lose a row, and bicubic
    # weights then follow that factor rather than the exact ratio of the sizes.
    factors = [(n + 0.1) / side for n, side in zip(grid, native, strict=True)]
    fine = functional.interpolate(
        square, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
    )
    return torch.cat([positions[:, :special], fine.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
