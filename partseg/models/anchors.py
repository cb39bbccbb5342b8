"""The grid of reference boxes that the proposal network starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(size: float, ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, centred on the origin: [len(ratios), 4] float32 xyxy.

    Every anchor has the area size². A ratio is height / width.
    """
    boxes = []
    for ratio in ratios:
        width = (size * size / ratio) ** 0.5
        height = ratio * width
        boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes, dtype=torch.float32)


def grid_anchors(height: int, width: int, stride: int, cell: Tensor) -> Tensor:
    """The anchors of one level, row by row, then column, then ratio: [height * width * A, 4].

    The anchors of cell (i, j) are centred on pixel (i * stride, j * stride), the corner of the cell: the
    published models were trained with an offset of 0.
    """
    y = torch.arange(height, dtype=torch.float32, device=cell.device) * stride
    x = torch.arange(width, dtype=torch.float32, device=cell.device) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cell.float()).reshape(-1, 4)
