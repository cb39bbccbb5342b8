from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from partseg.parsing import transfer
from partseg.parsing.transfer import (
    Transferred,
    carry,
    correspondences,
    largest_component,
    masks_to_grid,
    patch_boxes,
    return_distance,
    transferred,
    upsample,
)


def descriptors(labels: torch.Tensor) -> torch.Tensor:
    """Patches whose descriptor says what they are: one direction per label, of any length."""
    return torch.eye(8)[labels.flatten()] * torch.linspace(1, 3, labels.numel())[:, None]


def moved(
    base: torch.Tensor,
    masks: torch.Tensor,
    query: torch.Tensor,
    foreground: torch.Tensor,
    size: tuple[int, int],
) -> Transferred:
    """Masks in pixels of a base image, given by the labels of its patches, carried to a query image."""
    found = correspondences(descriptors(base), descriptors(query))
    grids = masks_to_grid(masks, (base.shape[0], base.shape[1]))
    claims = carry(grids, found.partners, foreground)
    return transferred(claims, found.cosine.view(1, *query.shape).expand(claims.shape), size)


def test_patches_find_their_own_kind_whatever_their_length() -> None:
    base, query = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[3, 3, 1], [0, 2, 2]])
    found = correspondences(descriptors(base), descriptors(query), back=True)
    assert found.partners.tolist() == [3, 3, 1, 0, 2, 2]
    assert torch.allclose(found.cosine, torch.ones(6))
    assert found.back is not None
    assert found.back.tolist() == [3, 2, 4, 0]  # the first of those that are alike
    assert correspondences(descriptors(base), descriptors(query)).back is None


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**31))
def test_comparing_in_small_pieces_changes_nothing(base: int, query: int, chunk: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Few directions, so that there are ties.
    left, right = (torch.randint(-1, 2, (n, 3), generator=draw).float() for n in (base, query))
    whole = correspondences(left, right, back=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CHUNK", chunk)
        pieces = correspondences(left, right, back=True)
    cosines = functional.normalize(right, dim=1) @ functional.normalize(left, dim=1).mT
    for found in (whole, pieces):
        assert found.back is not None
        torch.testing.assert_close(found.cosine, cosines.max(dim=1).values)
        torch.testing.assert_close(found.cosine, cosines[torch.arange(query), found.partners])
        torch.testing.assert_close(cosines[found.back, torch.arange(base)], cosines.max(dim=0).values)


def test_there_and_back_again() -> None:
    # A row of four patches; the last one's partner is most like the second patch.
    partners, back = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2])
    assert return_distance(partners, back, 4).tolist() == [0, 0, 0, 2]
    assert return_distance(partners, back, 2).tolist() == [0, 0, 0, 1]  # one row below it


def test_masks_move_to_where_their_patches_are() -> None:
    # Kind 1 is a 2x2 block at the top left of the base image and at the bottom right of the query.
    base, query = torch.zeros(4, 4, dtype=torch.int64), torch.zeros(6, 6, dtype=torch.int64)
    base[:2, :2] = 1
    query[3:5, 2:6] = 1
    query[0, 0] = 1  # a stray patch, not connected
    mask = (base == 1).repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = moved(base, mask[None], query, torch.ones(6, 6, dtype=torch.bool), (6, 6))
    assert torch.equal(found.masks[0], (query == 1) & (torch.arange(6)[:, None] > 1))
    assert found.boxes.tolist() == [[1.5, 2.5, 5.5, 4.5]]
    assert torch.allclose(found.similarity, torch.ones(1))


def test_background_patches_take_part_in_nothing() -> None:
    labels = torch.ones(3, 3, dtype=torch.int64)
    nowhere = torch.zeros(3, 3, dtype=torch.bool)
    found = moved(labels, torch.ones(1, 3, 3, dtype=torch.bool), labels, nowhere, (12, 12))
    assert not found.masks.any()
    assert found.boxes.tolist() == [[0, 0, 0, 0]]
    assert found.similarity.tolist() == [0]


def test_a_base_image_without_parts_lends_nothing() -> None:
    labels = torch.ones(3, 3, dtype=torch.int64)
    found = moved(labels, torch.zeros(0, 9, 9, dtype=torch.bool), labels, labels > 0, (12, 12))
    assert found.masks.shape == (0, 12, 12)
    assert found.boxes.shape == (0, 4)
    assert found.similarity.shape == (0,)


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
    assert patch_boxes(mask, (10, 10)).tolist() == [[3.5, 1.5, 8.5, 4.5], [0, 0, 0, 0]]


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.integers(0, 99), st.integers(0, 2**36 - 1)
)
def test_boxes_need_no_full_resolution(h: int, w: int, higher: int, wider: int, bits: int) -> None:
    """They are those of the upsampled masks, drawn as the published parser draws them."""
    patches = torch.tensor([bits >> i & 1 for i in range(h * w)]).view(1, h, w).bool()
    size = (128 + higher, 128 + wider)
    mask = upsample(patches, size)[0]
    columns, rows = mask.any(dim=0).nonzero().flatten().float(), mask.any(dim=1).nonzero().flatten().float()
    expected = torch.zeros(4)
    if len(columns):
        centre = torch.stack([columns.mean(), rows.mean()])
        half = torch.tensor([len(columns), len(rows)]) / 2
        expected = torch.cat([centre - half, centre + half])
    torch.testing.assert_close(patch_boxes(patches, size)[0], expected)
