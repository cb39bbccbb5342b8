from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from partseg.layout.runs import mask_to_rle, rle_area, rle_bbox, rle_to_mask
from partseg.layout.stacks import masks_to_segments

STACKS = st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 1), fill=st.sampled_from([0, 1]))
)


def assert_like_one_by_one(masks: list[NDArray[Any]]) -> None:
    segments = masks_to_segments(masks)
    kept = [index for index, mask in enumerate(masks) if mask.any()]
    assert segments.labels.tolist() == kept
    assert segments.rles == [mask_to_rle(masks[index]) for index in kept]
    assert segments.areas.tolist() == [rle_area(rle) for rle in segments.rles]
    height = masks[0].shape[0]
    assert [tuple(box) for box in segments.boxes_xywh.tolist()] == [
        rle_bbox(rle, height) for rle in segments.rles
    ]


@settings(deadline=None)
@given(STACKS, st.sampled_from(["C", "F"]), st.sampled_from([np.uint8, np.bool_, np.float64, np.int32]))
def test_many_masks_are_as_one_by_one(stack: NDArray[np.uint8], order: Any, dtype: Any) -> None:
    assert_like_one_by_one([np.asarray(mask, dtype, order=order) for mask in stack])


@settings(deadline=None)
@given(STACKS, st.integers(0, 3), st.integers(2, 255))
def test_views_of_one_buffer(stack: NDArray[np.uint8], gap: int, foreground: int) -> None:
    """As the masks of a file lie: column by column, each from a multiple of eight on, junk between them."""
    pixels = stack[0].size
    stride = (pixels + 7) // 8 * 8 + 8 * gap
    buffer = np.full(8 + stride * len(stack), 1, np.uint8)
    masks = []
    for index, mask in enumerate(stack):
        start = 8 + index * stride
        buffer[start : start + pixels] = mask.ravel(order="F")
        masks.append(buffer[start : start + pixels].reshape(mask.shape, order="F"))
    assert_like_one_by_one(masks)
    assert_like_one_by_one(masks[::-1])
    buffer *= foreground
    assert_like_one_by_one(masks)


@pytest.mark.parametrize("shape", [(8, 8), (16, 3), (375, 500), (7, 9), (1, 1)])
def test_stripes_and_full_masks(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    masks = [rows % 2, columns % 2, rows % 8 == 3, np.ones(shape), np.zeros(shape), rows == shape[0] - 1]
    assert_like_one_by_one([np.asarray(mask, np.uint8, order="F") for mask in masks])
    segments = masks_to_segments([np.asarray(masks[3], np.uint8)])
    assert rle_to_mask(segments.rles[0], *shape).all()


def test_no_masks() -> None:
    assert masks_to_segments([]).rles == []
    assert masks_to_segments([np.zeros((0, 5), np.uint8)]).rles == []
