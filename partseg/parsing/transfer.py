"""Carrying part masks from an annotated image to another one.

Every patch of the query image finds the base patch it resembles most. A part's mask in the query
is the set of foreground patches whose partner lies inside that part's mask in the base image, of
which the largest connected piece is kept. The steps follow VLPart's parser (facebookresearch/VLPart,
parser_net_mixer); each one is a function of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from partseg.parsing.descriptors import Features

TOKEN_EPS = 1e-6  # smallest product of norms when whole images are compared, as published
PATCH_EPS = 1e-8  # and when patches are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """Part masks carried to a query image.

    Attributes:
        patches: bool [P, h, w] on the query's grid of patches; a part that was not found is empty.
        masks: the same in pixels of the described image, bool [P, H, W]. Every pixel a patch has any
            influence on is inside, as published, so these are up to a patch wider than the part.
        boxes: float32 [P, 4] xyxy in the same pixels; zeros for an empty mask.
        similarity: mean cosine over the patches of each mask, float32 [P]; 0 for an empty mask.
    """

    patches: Tensor
    masks: Tensor
    boxes: Tensor
    similarity: Tensor


def nearest(query: Tensor, base: Tensor) -> tuple[int, float]:
    """The base image most like the query.

    Args:
        query: class token [D].
        base: class tokens [B, D].

    Returns:
        Its row, the first on ties, and the cosine.
    """
    products = base @ query
    cosine = products / (base.norm(dim=1) * query.norm()).clamp_min(TOKEN_EPS)
    row = int(cosine.argmax())
    return row, float(cosine[row])


def correspondences(base: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """For every query patch the most similar base patch.

    Args:
        base: descriptors [Nb, D].
        query: descriptors [Nq, D].

    Returns:
        Base rows int64 [Nq], the first on ties, and their cosine [Nq].
    """
    left = base / base.norm(dim=1, keepdim=True).clamp_min(PATCH_EPS)
    right = query / query.norm(dim=1, keepdim=True).clamp_min(PATCH_EPS)
    cosine, rows = (right @ left.mT).max(dim=1)
    return rows, cosine


def masks_to_grid(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks in pixels, [P, H, W] bool, on a grid of patches, [P, h, w] bool.

    A patch belongs to the mask when bilinear sampling at its centre is not zero.
    """
    if not len(masks):
        return masks.new_zeros((0, *grid))
    sampled = functional.interpolate(masks[None].float(), size=grid, mode="bilinear", align_corners=False)
    return sampled[0] != 0


def carry(base_masks: Tensor, partners: Tensor, foreground: Tensor) -> Tensor:
    """Follow the correspondences.

    Args:
        base_masks: bool [P, hb, wb].
        partners: base patch of every query patch, int64 [hq * wq].
        foreground: bool [hq, wq].

    Returns:
        bool [P, hq, wq].
    """
    moved = base_masks.flatten(1)[:, partners].view(-1, *foreground.shape)
    return moved & foreground


def largest_component(masks: Tensor) -> Tensor:
    """The largest 8-connected piece of each mask, bool [P, h, w]; the first one on ties."""
    kept = np.zeros(masks.shape, dtype=bool)
    for i, mask in enumerate(masks.cpu().numpy()):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count:
            kept[i] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return torch.from_numpy(kept).to(masks.device)


def upsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Grid masks [P, h, w] at ``size`` (H, W): wherever bilinear sampling is positive, bool [P, H, W]."""
    if not len(masks):
        return masks.new_zeros((0, *size))
    fine = functional.interpolate(masks[None].float(), size=size, mode="bilinear", align_corners=False)
    return fine[0] > 0


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of masks as the published parser draws them.

    The centre is the mean position of the occupied columns and rows, the size their number. For a
    connected mask that is the tight box, half a pixel up and to the left.

    Args:
        masks: bool [P, H, W].

    Returns:
        float32 [P, 4] xyxy; zeros for an empty mask.
    """
    columns, rows = masks.any(dim=1).float(), masks.any(dim=2).float()  # [P, W], [P, H]
    sides = []
    for occupied in (columns, rows):
        count = occupied.sum(dim=1)
        places = torch.arange(occupied.shape[1], device=masks.device, dtype=torch.float32)
        sides.append(((occupied @ places) / count.clamp_min(1), count))
    (x, w), (y, h) = sides
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=1)


def transfer(
    base: Features, base_masks: Tensor, query: Features, foreground: Tensor, size: tuple[int, int]
) -> Transferred:
    """Carry all part masks of one base image to a query image.

    Args:
        base: features of the base image.
        base_masks: its part masks, bool [P, Hb, Wb] in any resolution of the whole base image.
        query: features of the query image.
        foreground: patches of the query that may belong to a part, bool [hq, wq].
        size: (height, width) of the image the query's features were read from.

    Returns:
        P transferred parts, in the order of ``base_masks``.
    """
    partners, cosine = correspondences(base.descriptors, query.descriptors)
    on_grid = masks_to_grid(base_masks.to(partners.device), base.grid)
    moved = largest_component(carry(on_grid, partners, foreground))
    flat = moved.flatten(1).float()
    masks = upsample(moved, size)
    return Transferred(
        patches=moved,
        masks=masks,
        boxes=mask_boxes(masks),
        similarity=(flat @ cosine) / flat.sum(dim=1).clamp_min(1),
    )


def best_match(
    boxes: Tensor, candidates: Tensor, min_iou: float, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For every box the candidate that overlaps it most.

    Args:
        boxes: xyxy [P, 4].
        candidates: xyxy [M, 4].
        min_iou: an overlap of this much or less is no match.
        allowed: bool [P, M], which pairs may match; None allows all.

    Returns:
        Candidate rows int64 [P], -1 without a match, and the overlap [P].
    """
    if not len(candidates):
        return boxes.new_full((len(boxes),), -1, dtype=torch.int64), boxes.new_zeros(len(boxes))
    overlaps = box_iou(boxes, candidates)
    if allowed is not None:
        overlaps = overlaps * allowed
    overlap, rows = overlaps.max(dim=1)
    return torch.where(overlap > min_iou, rows, -1), overlap
