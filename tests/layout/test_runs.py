from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from partseg.layout import (
    decode_counts,
    encode_counts,
    label_map_to_runs,
    mask_to_rle,
    rle_area,
    rle_bbox,
    rle_decode_many,
    rle_to_mask,
    runs_to_segments,
)

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
MASKS = arrays(np.bool_, SHAPES)
LABEL_MAPS = arrays(np.int32, SHAPES, elements=st.integers(-1, 4))


def reference(mask: np.ndarray) -> dict[str, object]:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(MASKS)
def test_a_mask_gets_the_bytes_area_and_box_of_pycocotools(mask: np.ndarray) -> None:
    expected = reference(mask)
    rle = mask_to_rle(mask)
    assert rle == expected["counts"]
    assert rle_area(rle) == coco.area(expected)
    assert rle_bbox(rle, mask.shape[0]) == tuple(coco.toBbox(expected))
    np.testing.assert_array_equal(rle_to_mask(rle, *mask.shape), mask)


@given(LABEL_MAPS)
def test_all_masks_of_a_label_map_come_from_one_pass(label_map: np.ndarray) -> None:
    runs = label_map_to_runs(label_map)
    np.testing.assert_array_equal(runs.to_map(), label_map)
    segments = runs_to_segments(runs)
    assert segments.labels.tolist() == np.unique(label_map).tolist()
    for label, rle, area, box in zip(
        segments.labels, segments.rles, segments.areas, segments.boxes_xywh, strict=True
    ):
        expected = reference(label_map == label)
        assert rle == expected["counts"]
        assert area == coco.area(expected)
        assert box.tolist() == coco.toBbox(expected).tolist()


@settings(max_examples=300)
@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=12), st.booleans())
def test_counts_survive_any_size_of_run(counts: list[int], starts_with_one: bool) -> None:
    counts = [0, *counts] if starts_with_one else counts
    assert decode_counts(encode_counts(counts)).tolist() == counts


def test_large_runs_have_the_bytes_of_pycocotools() -> None:
    mask = np.zeros((3000, 2000), np.bool_)
    mask[5:2900, 3:1990] = True
    mask[100, 100] = False
    assert mask_to_rle(mask) == reference(mask)["counts"]


@pytest.mark.parametrize("value", [0, 1])
def test_uniform_masks(value: int) -> None:
    mask = np.full((4, 3), value, np.uint8)
    expected = reference(mask)
    assert mask_to_rle(mask) == expected["counts"]
    assert rle_bbox(mask_to_rle(mask), 4) == tuple(coco.toBbox(expected))


def test_many_masks_decode_to_one_array() -> None:
    masks = np.random.default_rng(0).random((5, 7, 9)) > 0.6
    decoded = rle_decode_many([mask_to_rle(mask) for mask in masks], 7, 9)
    np.testing.assert_array_equal(decoded, masks)
    assert rle_decode_many([], 7, 9).shape == (0, 7, 9)


@pytest.mark.parametrize("damaged", [b"\x01", b"o", b"52", b"PPYo"])
def test_damaged_bytes_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="run-length"):
        rle_to_mask(damaged, 3, 3)


def test_a_label_map_has_two_axes() -> None:
    with pytest.raises(ValueError, match="two axes"):
        label_map_to_runs(np.zeros((2, 2, 2)))


def test_an_empty_map_has_no_segments() -> None:
    assert runs_to_segments(label_map_to_runs(np.zeros((0, 3), np.int32))).rles == []
