from __future__ import annotations

import pytest
import torch

from partseg.training.step_times import measure_steps, random_batch
from tests.training.trainings import MODEL


@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_the_sections_of_a_step_make_up_the_step(amp: str) -> None:
    before = torch.get_rng_state()
    found = measure_steps(MODEL, images=2, side=64, steps=3, amp=amp, recompute=True)
    assert torch.equal(torch.get_rng_state(), before)
    sections = (found.data, found.forward, found.backward, found.optimiser)
    assert all(seconds > 0 for seconds in sections)
    assert found.step == pytest.approx(sum(sections))
    assert found.images_per_second == pytest.approx(2 / found.step)
    assert found.peak_memory > 10 * 2**20


def test_a_random_batch_is_always_the_same_and_its_boxes_lie_inside() -> None:
    first, second = random_batch(MODEL, 2, 64), random_batch(MODEL, 2, 64)
    assert all(torch.equal(a, b) for a, b in zip(first.images, second.images, strict=True))
    for target in first.targets:
        assert target.masks is not None
        assert target.boxes.min() >= 0
        assert target.boxes.max() <= 64
        assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
        assert (target.masks.flatten(1).sum(1) > 0).all()
