"""Which regions of an image the region heads learn from, and what they should say about each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from partseg.models import boxes as box_ops
from partseg.models.config import RoiConfig
from partseg.models.matching import POSITIVE, match, sample
from partseg.models.structures import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Regions of one image to learn from.

    Attributes:
        boxes: [K, 4] xyxy px.
        labels: [K] int64; the number of classes is background.
        rows: [K] int64, the ground truth each region was matched with.
        foreground: [F] int64, which of the regions are foreground.
    """

    boxes: Tensor
    labels: Tensor
    rows: Tensor
    foreground: Tensor


@torch.no_grad()
def choose(boxes: Tensor, target: Target, classes: int, config: RoiConfig) -> Samples:
    """Label proposals [P, 4], the ground truth among them, and draw the regions to learn from."""
    found, state = label(torch.cat([boxes, target.boxes]), target, classes, config.positive_iou)
    chosen = torch.cat(
        sample(state, count=config.samples_per_image, positive_fraction=config.positive_fraction)
    )
    return _samples(found.boxes[chosen], found.labels[chosen], found.rows[chosen], classes)


@torch.no_grad()
def label(boxes: Tensor, target: Target, classes: int, iou: float) -> tuple[Samples, Tensor]:
    """Label all boxes [K, 4]; those that overlap a ground truth by ``iou`` are foreground.

    Returns:
        The regions, and the state [K] int8 of each; see :mod:`partseg.models.matching`.
    """
    rows, state = match(
        box_ops.pairwise_iou(target.boxes, boxes), negative=iou, positive=iou, low_quality=False
    )
    labels = torch.full_like(rows, classes)
    positive = state == POSITIVE
    labels[positive] = target.labels[rows[positive]]
    return _samples(boxes, labels, rows, classes), state


def _samples(boxes: Tensor, labels: Tensor, rows: Tensor, classes: int) -> Samples:
    return Samples(
        boxes=boxes, labels=labels, rows=rows, foreground=torch.nonzero(labels < classes).squeeze(1)
    )
