from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.models import boxes as box_ops
from partseg.models.anchors import cell_anchors, grid_anchors
from partseg.models.matching import IGNORED, NEGATIVE, POSITIVE, match, sample

numbers = st.floats(0, 500, width=32)
sides = st.floats(1, 200, width=32)
some_boxes = st.tuples(numbers, numbers, sides, sides).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


@settings(max_examples=100, deadline=None)
@given(some_boxes, some_boxes)
def test_coding_round_trip(reference: list[float], target: list[float]) -> None:
    first = torch.tensor([reference], dtype=torch.float64)
    second = torch.tensor([target], dtype=torch.float64)
    if ((second[:, 2:] - second[:, :2]) / (first[:, 2:] - first[:, :2])).max() > 62:
        return  # larger than a region may grow
    for weights in ((1, 1, 1, 1), (10, 10, 5, 5)):
        again = box_ops.decode(first, box_ops.encode(first, second, weights), weights)
        torch.testing.assert_close(again, second, rtol=1e-4, atol=1e-2)


def test_decoding_cannot_explode() -> None:
    box = box_ops.decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 100, 100]]), (1, 1, 1, 1))
    assert math.isclose(float(box[0, 2] - box[0, 0]), 1000, rel_tol=1e-5)


@settings(max_examples=50, deadline=None)
@given(some_boxes, some_boxes)
def test_iou_is_symmetric_and_bounded(first: list[float], second: list[float]) -> None:
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    value = box_ops.pairwise_iou(a, b)
    assert 0 <= value <= 1 + 1e-9
    torch.testing.assert_close(value, box_ops.pairwise_iou(b, a))
    torch.testing.assert_close(box_ops.pairwise_iou(a, a), torch.ones_like(value))


def test_iou_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    second = torch.tensor([[1.0, 1, 3, 3], [5, 5, 5, 5], [0, 0, 2, 4]])
    torch.testing.assert_close(
        box_ops.pairwise_iou(first, second), torch.tensor([[1 / 7, 0, 0.5], [0, 0, 0]])
    )


def test_clip_and_non_empty() -> None:
    clipped = box_ops.clip(torch.tensor([[-5.0, -5, 200, 50], [150, 10, 190, 20]]), 40, 100)
    assert clipped.tolist() == [[0, 0, 100, 40], [100, 10, 100, 20]]
    assert box_ops.non_empty(clipped).tolist() == [True, False]


def test_anchors_by_hand() -> None:
    cell = cell_anchors(32, (0.5, 1.0, 2.0))
    half = [(45.254834, 22.627417), (32, 32), (22.627417, 45.254834)]
    expected = torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in half])
    torch.testing.assert_close(cell, expected)
    grid = grid_anchors(2, 3, 8, cell)
    assert grid.shape == (18, 4)
    torch.testing.assert_close(grid[1], torch.tensor([-16.0, -16, 16, 16]))  # cell (0, 0), ratio 1
    torch.testing.assert_close(grid[4], torch.tensor([-8.0, -16, 24, 16]))  # one cell to the right
    torch.testing.assert_close(grid[10], torch.tensor([-16.0, -8, 16, 24]))  # one cell down


def test_matching_rules() -> None:
    iou = torch.tensor([[0.1, 0.35, 0.75, 0.2], [0.0, 0.4, 0.1, 0.25]])
    index, state = match(iou, negative=0.3, positive=0.7, low_quality=False)
    assert index.tolist() == [0, 1, 0, 1]
    assert state.tolist() == [NEGATIVE, IGNORED, POSITIVE, NEGATIVE]
    # The second ground truth has no good candidate: its best one is taken.
    _, state = match(iou, negative=0.3, positive=0.7, low_quality=True)
    assert state.tolist() == [NEGATIVE, POSITIVE, POSITIVE, NEGATIVE]


def test_without_ground_truth_all_is_negative() -> None:
    index, state = match(torch.zeros(0, 3), negative=0.3, positive=0.7, low_quality=True)
    assert index.tolist() == [0, 0, 0]
    assert state.tolist() == [NEGATIVE] * 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=40), st.integers(1, 20), st.sampled_from([0.25, 0.5]))
def test_sampling_rules(states: list[int], count: int, fraction: float) -> None:
    positive, negative = sample(
        torch.tensor(states, dtype=torch.int8), count=count, positive_fraction=fraction
    )
    assert len(positive) == min(int(count * fraction), states.count(1))
    assert len(negative) == min(count - len(positive), states.count(0))
    assert all(states[i] == 1 for i in positive.tolist())
    assert all(states[i] == 0 for i in negative.tolist())
    assert len(set(positive.tolist()) | set(negative.tolist())) == len(positive) + len(negative)
