"""Which anchors and regions are examples of which ground truth, and which of them are looked at."""

from __future__ import annotations

import torch
from torch import Tensor

NEGATIVE, IGNORED, POSITIVE = 0, -1, 1


def match(iou: Tensor, *, negative: float, positive: float, low_quality: bool) -> tuple[Tensor, Tensor]:
    """Assign each of A candidates to one of G ground-truth boxes.

    A candidate is positive at an IoU of at least ``positive``, negative below ``negative`` and ignored
    between.

    Args:
        iou: [G, A].
        negative: upper bound (exclusive) of a negative's best IoU.
        positive: lower bound of a positive's best IoU.
        low_quality: also make positive every candidate that reaches the best IoU of some ground truth.

    Returns:
        The best ground truth of each candidate [A] int64 (0 where there is none), and its state [A] int8.
    """
    if iou.shape[0] == 0:
        empty = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
        return empty, torch.full_like(empty, NEGATIVE, dtype=torch.int8)
    best, index = iou.max(dim=0)
    state = torch.full_like(index, IGNORED, dtype=torch.int8)
    state[best < negative] = NEGATIVE
    state[best >= positive] = POSITIVE
    if low_quality:
        reaches = (iou == iou.max(dim=1, keepdim=True).values).any(dim=0)
        state[reaches] = POSITIVE
    return index, state


def sample(state: Tensor, *, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` candidates, at most ``positive_fraction`` of them positive.

    Args:
        state: [A], NEGATIVE, IGNORED or POSITIVE.
        count: how many to draw.
        positive_fraction: the largest part of positives.

    Returns:
        Indices of the chosen positives and of the chosen negatives, in random order.
    """
    positive = torch.nonzero(state == POSITIVE).squeeze(1)
    negative = torch.nonzero(state == NEGATIVE).squeeze(1)
    positives = min(int(count * positive_fraction), positive.numel())
    negatives = min(count - positives, negative.numel())
    order = torch.randperm(positive.numel(), device=state.device)[:positives]
    positive = positive[order]
    order = torch.randperm(negative.numel(), device=state.device)[:negatives]
    return positive, negative[order]
