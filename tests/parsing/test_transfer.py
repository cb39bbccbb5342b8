from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from partseg.parsing.descriptors import Features
from partseg.parsing.transfer import (
    best_match,
    carry,
    correspondences,
    largest_component,
    mask_boxes,
    masks_to_grid,
    nearest,
    transfer,
    upsample,
)


def features(labels: torch.Tensor) -> Features:
    """Patches whose descriptor says what they are: one direction per label."""
    descriptors = torch.eye(8)[labels.flatten()] * torch.linspace(1, 3, labels.numel())[:, None]
    grid = (labels.shape[0], labels.shape[1])
    return Features(
        token=descriptors.mean(0), descriptors=descriptors, saliency=torch.ones(labels.numel()), grid=grid
    )


def test_the_nearest_image_is_the_one_with_the_smallest_angle() -> None:
    base = torch.tensor([[10.0, 0.0], [0.1, 0.1], [0.0, 5.0]])
    row, cosine = nearest(torch.tensor([3.0, 3.0]), base)
    assert row == 1
    assert abs(cosine - 1) < 1e-6
    assert nearest(torch.tensor([1.0, 1.0]), torch.ones(3, 2))[0] == 0  # the first on ties


def test_patches_find_their_own_kind_whatever_their_length() -> None:
    base = features(torch.tensor([[0, 1], [2, 3]]))
    query = features(torch.tensor([[3, 3, 1], [0, 2, 2]]))
    rows, cosine = correspondences(base.descriptors, query.descriptors)
    assert rows.tolist() == [3, 3, 1, 0, 2, 2]
    assert torch.allclose(cosine, torch.ones(6))


def test_masks_move_to_where_their_patches_are() -> None:
    # Kind 1 is a 2x2 block at the top left of the base image and at the bottom right of the query.
    base, query = torch.zeros(4, 4, dtype=torch.int64), torch.zeros(6, 6, dtype=torch.int64)
    base[:2, :2] = 1
    query[3:5, 2:6] = 1
    query[0, 0] = 1  # a stray patch, not connected
    mask = (base == 1).repeat_interleave(4, 0).repeat_interleave(4, 1)
    everything = torch.ones(6, 6, dtype=torch.bool)
    moved = transfer(features(base), mask[None], features(query), everything, (6, 6))
    assert torch.equal(moved.masks[0], (query == 1) & (torch.arange(6)[:, None] > 1))
    assert moved.boxes.tolist() == [[1.5, 2.5, 5.5, 4.5]]
    assert torch.allclose(moved.similarity, torch.ones(1))


def test_background_patches_take_part_in_nothing() -> None:
    labels = torch.ones(3, 3, dtype=torch.int64)
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    nowhere = torch.zeros(3, 3, dtype=torch.bool)
    moved = transfer(features(labels), mask, features(labels), nowhere, (12, 12))
    assert not moved.masks.any()
    assert moved.boxes.tolist() == [[0, 0, 0, 0]]
    assert moved.similarity.tolist() == [0]


def test_a_base_image_without_parts_lends_nothing() -> None:
    labels = torch.ones(3, 3, dtype=torch.int64)
    moved = transfer(
        features(labels),
        torch.zeros(0, 9, 9, dtype=torch.bool),
        features(labels),
        torch.ones(3, 3) > 0,
        (12, 12),
    )
    assert moved.masks.shape == (0, 12, 12)
    assert moved.boxes.shape == (0, 4)


def test_corners_connect_and_the_first_piece_wins_a_tie() -> None:
    mask = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]).bool()
    kept = largest_component(torch.stack([mask, torch.zeros_like(mask)]))
    assert kept[0].nonzero().tolist() == [[0, 0], [1, 1]]
    assert not kept[1].any()


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**49 - 1))
def test_the_largest_component_is_part_of_the_mask_and_stays_when_asked_again(
    h: int, w: int, bits: int
) -> None:
    mask = torch.tensor([bits >> i & 1 for i in range(h * w)]).view(1, h, w).bool()
    kept = largest_component(mask)
    assert not (kept & ~mask).any()
    assert torch.equal(largest_component(kept), kept)
    assert bool(kept.any()) == bool(mask.any())


def test_grid_and_pixels() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 4:, 4:] = True
    assert masks_to_grid(mask, (2, 2))[0].tolist() == [[False, False], [False, True]]
    up = upsample(torch.tensor([[[False, True]]]), (1, 4))
    assert up[0, 0].tolist() == [False, True, True, True]
    assert carry(
        mask[:, 3:5, 3:5], torch.tensor([3, 0, 3]), torch.tensor([[True, True, False]])
    ).tolist() == [[[True, False, False]]]


def test_boxes_are_centred_on_the_occupied_rows_and_columns() -> None:
    mask = torch.zeros(2, 10, 10, dtype=torch.bool)
    mask[0, 2:5, 4:9] = True
    assert mask_boxes(mask).tolist() == [[3.5, 1.5, 8.5, 4.5], [0, 0, 0, 0]]


def test_a_box_needs_more_than_the_smallest_overlap() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    candidates = torch.tensor([[0.0, 0, 10, 3], [0, 0, 10, 8]])
    rows, overlap = best_match(boxes, candidates, 0.3)
    assert rows.tolist() == [1, -1]
    assert torch.allclose(overlap, torch.tensor([0.8, 0.0]))
    assert best_match(boxes, candidates, 0.8)[0].tolist() == [-1, -1]
    assert best_match(boxes, torch.zeros(0, 4), 0.3)[0].tolist() == [-1, -1]
