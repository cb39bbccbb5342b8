"""Non-maximum suppression where only the best few are wanted."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

# Candidates looked at first, per box that is wanted.
FIRST_LOOK = 16


def best_per_class(boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float, limit: int) -> Tensor:
    """The best boxes that no better box of the same class overlaps by more than ``iou``.

    Boxes are visited in the order of their scores, so those behind the last one wanted do not matter: nearly
    always it is enough to look at the first few of what may be a hundred thousand.

    Args:
        boxes: [N, 4] xyxy px, none negative.
        scores: [N].
        labels: [N] int64.
        iou: the largest overlap allowed.
        limit: how many are wanted.

    Returns:
        Up to ``limit`` indices, best first.
    """
    if len(boxes) > FIRST_LOOK * limit:
        order = torch.sort(scores, descending=True, stable=True).indices[: FIRST_LOOK * limit]
        some = boxes[order].double()
        # Classes are moved so far apart that they never meet; in float64, for the sake of the overlaps.
        apart = some + labels[order, None] * (some.max() + 1)
        kept: Tensor = nms(apart, scores[order].double(), iou)
        if len(kept) >= limit:
            return order[kept[:limit]]
    every: Tensor = batched_nms(boxes, scores, labels, iou)
    return every[:limit]
