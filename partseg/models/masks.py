"""Masks inside regions: what a region's mask should be, and how a predicted one gets back into the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

# Pasted masks are made in portions of at most this many pixels (as float32: 256 MiB).
PIXELS_AT_ONCE = 64 * 2**20


def mask_targets(
    masks: Sequence[Tensor], regions: Sequence[Tensor], rows: Sequence[Tensor], size: int
) -> Tensor:
    """Cut each region out of its ground-truth mask.

    Args:
        masks: per image [N, h, w] uint8.
        regions: per image [K, 4] xyxy px.
        rows: per image [K] int64, the mask that belongs to each region.
        size: side of the targets.

    Returns:
        [sum of K, size, size] float32, 0 or 1.
    """
    cuts = []
    for image_masks, boxes, row in zip(masks, regions, rows, strict=True):
        rois = torch.cat([row.to(boxes.dtype)[:, None], boxes], dim=1)
        cuts.append(roi_align(image_masks[:, None].float(), rois, size, 1.0, -1, aligned=True)[:, 0])
    return (torch.cat(cuts) >= 0.5).float()


def paste(probabilities: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> list[bytes]:
    """Put predicted masks into the image.

    A pixel belongs to the mask where the bilinearly sampled probability reaches the threshold. Bilinear
    sampling of an upright box is separable, so two small matrix products per mask do it.

    Args:
        probabilities: [N, m, m] float32 in 0..1, each over the extent of its box.
        boxes: [N, 4] xyxy px of the image.
        height: of the image.
        width: of the image.
        threshold: on the probability.

    Returns:
        N compressed COCO run-lengths.
    """
    coded: list[bytes] = []
    step = max(1, PIXELS_AT_ONCE // max(1, height * width))
    for start in range(0, len(boxes), step):
        chunk, cut = boxes[start : start + step], probabilities[start : start + step]
        across = _weights(chunk[:, 0], chunk[:, 2], width, cut.shape[2])  # [n, W, m]
        down = _weights(chunk[:, 1], chunk[:, 3], height, cut.shape[1])  # [n, H, m]
        # Columns first: COCO's run-lengths go down the columns.
        pasted = torch.bmm(torch.bmm(across, cut.transpose(1, 2)), down.transpose(1, 2)) >= threshold
        columns = pasted.to(torch.uint8).cpu().numpy()  # [n, W, H]
        coded.extend(rle["counts"] for rle in coco_mask.encode(columns.transpose(2, 1, 0)))
    return coded


def _weights(low: Tensor, high: Tensor, pixels: int, cells: int) -> Tensor:
    """[n, pixels, cells]: how much each cell of a mask over low..high counts at each pixel centre."""
    centres = torch.arange(pixels, dtype=low.dtype, device=low.device) + 0.5
    position = (centres - low[:, None]) / (high - low)[:, None] * cells - 0.5
    cell = torch.arange(cells, dtype=low.dtype, device=low.device)
    return (1 - (position[:, :, None] - cell).abs()).clamp_(min=0)
