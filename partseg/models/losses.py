"""The losses of the region heads, each a function of plain tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from partseg.models import boxes as box_ops


def classification(logits: Tensor, labels: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy over the classes, summed, divided by the number of regions.

    Args:
        logits: [N, C + 1]; the background column is never trained.
        labels: [N] int64; C (or more) is background.
        class_weight: [C] 0 or 1, from :func:`federated_weight`.
    """
    classes = logits.shape[1] - 1
    target = functional.one_hot(labels.clamp(max=classes), classes + 1)[:, :classes].to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(
        logits[:, :classes],
        target,
        weight=None if class_weight is None else class_weight[None].to(logits.dtype),
        reduction="sum",
    )
    return loss / max(1, len(logits))


def federated_weight(labels: Tensor, image_counts: Tensor, *, classes: int, power: float) -> Tensor:
    """Which classes a batch of a federated dataset is graded on.

    All classes of the batch count (background is one of them), then others are drawn without replacement,
    with a probability proportional to image_count ** power, until ``classes`` are chosen. Nothing is drawn
    where the batch itself has that many.

    Args:
        labels: [N] int64 of the sampled regions; C is background.
        image_counts: [C].
        classes: how many to choose.
        power: of the image counts.

    Returns:
        [C] float32, 1 for the chosen classes.
    """
    total = len(image_counts)
    weight = torch.zeros(total + 1, device=labels.device)
    present = torch.unique(labels.clamp(max=total))
    weight[present] = 1
    chance = torch.cat([image_counts.to(labels.device).double() ** power, weight.new_zeros(1).double()])
    chance[present] = 0
    wanted = min(classes - len(present), int((chance > 0).sum()))
    if wanted > 0:
        weight[torch.multinomial(chance, wanted, replacement=False)] = 1
    return weight[:total]


def box_regression(
    deltas: Tensor, regions: Tensor, target: Tensor, weights: tuple[float, ...], count: int
) -> Tensor:
    """Summed absolute difference of the deltas of the foreground regions, divided by the number of all.

    Args:
        deltas: [K, 4] predicted.
        regions: [K, 4] xyxy px.
        target: [K, 4] xyxy px, the ground truth of each region.
        weights: of the box coding.
        count: of all regions, background included.
    """
    return (deltas - box_ops.encode(regions, target, weights)).abs().sum() / max(1, count)


def mask(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over regions and pixels, [K, m, m] both; 0, with gradients 0, without a region."""
    if len(logits) == 0:
        return logits.sum() * 0
    return functional.binary_cross_entropy_with_logits(logits, target)


def image_labels(
    logits: list[Tensor], regions: list[Tensor], labels: list[Tensor], *, skip_last: bool
) -> Tensor:
    """Each label of an image teaches the image's largest proposal.

    The cross-entropy runs over all C + 1 columns, is averaged over the labels of an image and then over the
    images.

    Args:
        logits: per image [P, C + 1].
        regions: per image [P, 4] xyxy px.
        labels: per image [L] int64.
        skip_last: never choose the last proposal (unless it is the only one).
    """
    chosen = []
    for image_logits, boxes, image_label in zip(logits, regions, labels, strict=True):
        if len(boxes):
            area = box_ops.area(boxes)
            largest = int(area[:-1].argmax() if skip_last and len(area) > 1 else area.argmax())
            chosen.append(image_logits[largest].expand(len(image_label), -1))
        else:
            chosen.append(image_logits)
    return _taught_rows(chosen, labels)


def highest_scores(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Each label teaches the proposal of its image that already scores highest for it.

    Cross-entropy and averages as in :func:`image_labels`.

    Args:
        logits: per image [P, C + 1].
        labels: per image [L] int64.
    """
    chosen = [
        image_logits[image_logits[:, image_label].argmax(dim=0)] if len(image_logits) else image_logits
        for image_logits, image_label in zip(logits, labels, strict=True)
    ]
    return _taught_rows(chosen, labels)


def _taught_rows(rows: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Row i [C + 1] of an image shall say label i and nothing else; mean over labels, then over images."""
    total = rows[0].new_zeros(())
    for image_rows, image_label in zip(rows, labels, strict=True):
        if len(image_label) == 0 or len(image_rows) == 0:
            total = total + image_rows.sum() * 0
            continue
        target = functional.one_hot(image_label, image_rows.shape[1]).to(image_rows.dtype)
        loss = functional.binary_cross_entropy_with_logits(image_rows, target, reduction="sum")
        total = total + loss / len(image_label)
    return total / len(rows)
