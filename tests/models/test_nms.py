from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from partseg.models.nms import best_per_class


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 400),
    classes=st.integers(1, 5),
    limit=st.integers(1, 40),
    spread=st.sampled_from([5.0, 100.0]),
)
def test_the_best_of_every_class(seed: int, count: int, classes: int, limit: int, spread: float) -> None:
    """The same boxes as when all are looked at, whether the first few are enough (wide) or not (narrow)."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * spread
    boxes = torch.cat([low, low + 5 + 20 * torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    kept = best_per_class(boxes, scores, labels, iou=0.5, limit=limit)
    assert kept.tolist() == batched_nms(boxes, scores, labels, 0.5)[:limit].tolist()
