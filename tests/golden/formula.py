"""Weights, images and ground truth made from integers, the same in any library.

The golden numbers beside this file were made by running the original code on these values.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def integers(tag: str, count: int) -> NDArray[np.int64]:
    """``count`` integers below 2**24: the upper bits of splitmix64, started from the CRC of the tag."""
    start = np.uint64((zlib.crc32(tag.encode()) * _STEP) & _MASK)
    with np.errstate(over="ignore"):
        z = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.int64)


def tensor(key: str, shape: tuple[int, ...], seed: str = "a", gain: float = 1.0) -> NDArray[Any]:
    """The value of state-dict entry ``key``: scaled by fan-in, near 1 for norm weights, small for biases."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    count = int(np.prod(shape)) if shape else 1
    x = ((integers(f"{seed}:{key}", count) / 8388608.0 - 1.0) * 1.7320508075688772).reshape(shape)
    if key.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif key.endswith("running_mean"):
        x = 0.1 * x
    elif len(shape) >= 2:
        x = x / np.sqrt(np.prod(shape[1:]))
    else:
        x = 0.1 * x if key.endswith("bias") else 1 + 0.1 * x
    value = x.astype(np.float32)
    return value if gain == 1 else (value.astype(np.float64) * gain).astype(np.float32)


def image(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: triangle waves, blocks and noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    noise = (integers(f"image:{seed}", height * width * 3) >> 19).reshape(height, width, 3)
    channels = []
    for c in range(3):
        value = 40 + 3 * _wave(x * (c + 1) + y + 7 * seed, 29)
        value = value + 2 * _wave(y * (c + 2) - x + 13 * seed + 4000, 23)
        value = value + 40 * (((x // 32 + y // 24 + c + seed) % 3) == 0) + noise[..., c]
        channels.append(np.clip(value, 0, 255))
    return np.stack(channels, -1).astype(np.uint8)


def sample_index(size: int, count: int) -> NDArray[np.int64]:
    """Which entries of a flattened tensor are kept of large tensors."""
    return (np.arange(count, dtype=np.int64) * 2654435761 + 12345) % size


def _wave(t: NDArray[np.int64], period: int) -> NDArray[np.int64]:
    return np.abs(t % (2 * period) - period)
