from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from partseg.models.roi_align import pool_regions

SIZES, STRIDES, IMAGES, CHANNELS = ((20, 28), (10, 14), (5, 7)), (4, 8, 16), 2, 3
HEIGHT, WIDTH = 80, 112


def pyramid(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(IMAGES, CHANNELS, *size, generator=generator).to(dtype).requires_grad_() for size in SIZES
    ]


def by_torchvision(
    features: list[torch.Tensor], regions: torch.Tensor, level: torch.Tensor, size: int
) -> torch.Tensor:
    pooled = [
        roi_align(features[at], region[None], size, 1 / STRIDES[at], -1, aligned=True)
        for region, at in zip(regions.to(features[0].dtype), level.tolist(), strict=True)
    ]
    return torch.cat(pooled)


corner = st.tuples(st.floats(-30, 100, width=32), st.floats(-30, 130, width=32))
extent = st.tuples(st.floats(0, 90, width=32), st.floats(0, 120, width=32))
region = st.tuples(st.integers(0, IMAGES - 1), corner, extent, st.integers(0, len(SIZES) - 1))


@settings(max_examples=60)
@given(found=st.lists(region, min_size=1, max_size=6), size=st.sampled_from([1, 2, 7]))
def test_regions_and_gradients_are_torchvisions(found: list, size: int) -> None:  # type: ignore[type-arg]
    """Also of regions without extent, beyond the border, and with bins of many samples."""
    regions = torch.tensor([[image, x, y, x + w, y + h] for image, (y, x), (h, w), _ in found]).double()
    level = torch.tensor([level for *_, level in found])
    ours, theirs = pyramid(torch.float64), pyramid(torch.float64)
    pooled = pool_regions(ours, STRIDES, regions, level, size)
    expected = by_torchvision(theirs, regions, level, size)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-9)
    weight = torch.arange(pooled.numel(), dtype=torch.float64).view(pooled.shape).sin()
    (pooled * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        given_gradient = torch.zeros_like(mine) if other.grad is None else other.grad
        torch.testing.assert_close(mine.grad, given_gradient, rtol=0, atol=1e-9)


def test_no_region_and_regions_that_are_not_numbers() -> None:
    features = pyramid()
    nothing = pool_regions(features, STRIDES, torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), 7)
    assert nothing.shape == (0, CHANNELS, 7, 7)
    # A training that diverges must reach its check of the loss.
    regions = torch.tensor([[0, float("nan"), 0, 5, 5], [1, 0, 0, float("inf"), 9]]).clamp(max=WIDTH)
    assert pool_regions(features, STRIDES, regions, torch.tensor([0, 1]), 7).isfinite().all()
