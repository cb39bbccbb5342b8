"""Boxes as corner coordinates [N, 4] xyxy, in pixels: overlap, coding against reference boxes, clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# exp() of a regressed size must not overflow: a region may grow at most to this factor (1000 px from 16 px).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def area(boxes: Tensor) -> Tensor:
    """Areas [N] of boxes [N, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [N, M] of boxes [N, 4] and [M, 4]; 0 where two boxes do not meet."""
    width = torch.minimum(first[:, None, 2], second[:, 2]) - torch.maximum(first[:, None, 0], second[:, 0])
    height = torch.minimum(first[:, None, 3], second[:, 3]) - torch.maximum(first[:, None, 1], second[:, 1])
    intersection = width.clamp_(min=0) * height.clamp_(min=0)
    union = area(first)[:, None] + area(second)[None, :] - intersection
    # Where nothing intersects, the union may be 0 as well.
    return torch.where(intersection > 0, intersection / union, 0.0)


def encode(reference: Tensor, target: Tensor, weights: Sequence[float]) -> Tensor:
    """The regression targets [N, 4] (dx, dy, dw, dh) that take each reference box to its target box."""
    size, centre = _size_and_centre(reference)
    target_size, target_centre = _size_and_centre(target)
    scale = reference.new_tensor(weights)
    shift = scale[:2] * (target_centre - centre) / size
    return torch.cat([shift, scale[2:] * torch.log(target_size / size)], dim=1)


def decode(reference: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Apply regressed deltas [N, 4] to reference boxes [N, 4]. The inverse of :func:`encode`."""
    size, centre = _size_and_centre(reference)
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    new_centre = deltas[:, :2] * size + centre
    half = 0.5 * torch.exp(deltas[:, 2:].clamp(max=MAX_LOG_SCALE)) * size
    return torch.cat([new_centre - half, new_centre + half], dim=1)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes cut at the border of an image."""
    x = boxes[:, 0::2].clamp(min=0, max=width)
    y = boxes[:, 1::2].clamp(min=0, max=height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def non_empty(boxes: Tensor) -> Tensor:
    """Bool [N]: the box has a positive width and height."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _size_and_centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return size, boxes[:, :2] + 0.5 * size
