"""Masks inside regions: what a region's mask should be, and how a predicted one gets back into the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align


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
    sampling of an upright box is separable, so two small matrix products per mask do it. Beside them it takes
    the memory of one uint8 image.

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
    # Each mask is sampled around its box only, put into this one image and taken out again.
    canvas = np.zeros((height, width, 1), np.uint8, order="F")
    cells = probabilities.shape[1:]
    for box, extent, cut in zip(boxes, boxes.tolist(), probabilities, strict=True):
        x0, x1 = _reach(extent[0], extent[2], width, cells[1], threshold)
        y0, y1 = _reach(extent[1], extent[3], height, cells[0], threshold)
        across = _weights(box[0], box[2], (x0, x1), cells[1])  # [w, m]
        down = _weights(box[1], box[3], (y0, y1), cells[0])  # [h, m]
        pasted = (across @ cut.T) @ down.T >= threshold  # [w, h]: COCO's run-lengths go down the columns
        canvas[y0:y1, x0:x1, 0] = pasted.cpu().numpy().T
        coded.append(coco_mask.encode(canvas)[0]["counts"])
        canvas[y0:y1, x0:x1] = 0
    return coded


def _reach(low: float, high: float, pixels: int, cells: int, threshold: float) -> tuple[int, int]:
    """First and last + 1 of the pixels a mask over low..high can be seen at, with one to spare."""
    if threshold <= 0:  # every pixel reaches it
        return 0, pixels
    margin = (high - low) / cells / 2 + 1
    first = min(pixels, max(0, math.floor(low - margin)))
    return first, max(first, min(pixels, math.ceil(high + margin)))


def _weights(low: Tensor, high: Tensor, pixels: tuple[int, int], cells: int) -> Tensor:
    """[last - first, cells]: how much each cell of a mask over low..high counts at each pixel centre."""
    centres = torch.arange(*pixels, dtype=low.dtype, device=low.device) + 0.5
    position = (centres - low) / (high - low) * cells - 0.5
    cell = torch.arange(cells, dtype=low.dtype, device=low.device)
    return (1 - (position[:, None] - cell).abs()).clamp_(min=0)
