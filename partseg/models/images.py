"""Images on their way into a network: resizing and batching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# The coarsest level of the backbone has stride 32; a pyramid needs whole cells on every level.
SIZE_DIVISOR = 32


def resized_shape(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """The (height, width) with the given short side, or smaller where the long side would pass its limit."""
    scale = short_side / min(height, width)
    if scale * max(height, width) > long_side:
        scale = long_side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A resized copy of [H, W, 3]: Pillow's antialiasing bilinear filter, as in the published trainings."""
    if image.shape[:2] == (height, width):
        return image.copy()
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def to_batch(images: Sequence[Tensor], mean: Tensor, std: Tensor) -> Tensor:
    """Normalise uint8 images [3, h, w]; stack them, padded with 0 right and below: [B, 3, H, W] float32."""
    height = _rounded(max(image.shape[1] for image in images))
    width = _rounded(max(image.shape[2] for image in images))
    batch = torch.zeros((len(images), 3, height, width), dtype=mean.dtype, device=mean.device)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image.to(mean.device, mean.dtype) - mean) / std
    return batch


def _rounded(size: int) -> int:
    return -(-size // SIZE_DIVISOR) * SIZE_DIVISOR
