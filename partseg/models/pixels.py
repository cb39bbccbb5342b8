"""A feature pyramid as one table with a row per pixel, for all that looks at some pixels of any level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTable:
    """The pixels of a pyramid: level by level, image by image, row by row.

    Attributes:
        pixels: [P, C].
        starts: [L] int64, where the levels begin.
        heights: [L] int64.
        widths: [L] int64.
    """

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor

    def image_starts(self, level: Tensor, image: Tensor) -> Tensor:
        """Where the pixels of an image begin in a level, int64; both of any, equal shape."""
        return self.starts[level] + image * self.heights[level] * self.widths[level]


def pixel_table(features: Sequence[Tensor]) -> PixelTable:
    """The table of a pyramid [B, C, H, W] each. Cheap where the levels are channels-last."""
    device = features[0].device
    heights = torch.tensor([f.shape[2] for f in features], device=device)
    widths = torch.tensor([f.shape[3] for f in features], device=device)
    counts = heights * widths * len(features[0])
    return PixelTable(
        pixels=torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in features]),
        starts=counts.cumsum(0) - counts,
        heights=heights,
        widths=widths,
    )


def neighbourhoods(table: PixelTable, level: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The 3 x 3 pixels around each of K, row by row: [K, 9, C]. Outside of the image is 0.

    Args:
        table: the pyramid.
        level: [K] int64.
        image: [K] int64.
        y: [K] int64, row.
        x: [K] int64, column.
    """
    step = torch.tensor([-1, 0, 1], device=y.device)
    rows, columns = y[:, None] + step.repeat_interleave(3), x[:, None] + step.repeat(3)
    height, width = table.heights[level, None], table.widths[level, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = table.image_starts(level, image)[:, None] + rows * width + columns
    return functional.embedding(index.where(inside, 0), table.pixels) * inside[..., None]
