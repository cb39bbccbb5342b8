from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from partseg.errors import TrainingError
from partseg.layout import mask_to_rle
from partseg.training.masks import Geometry, mask_runs


def geometry(old: tuple[int, int], new: tuple[int, int], flip: bool) -> Geometry:
    return Geometry(old_height=old[0], old_width=old[1], height=new[0], width=new[1], flip=flip)


def published(mask: NDArray[np.uint8], change: Geometry) -> NDArray[np.uint8]:
    """What detectron2 does with run-lengths: decode, Pillow's nearest neighbour, mirror."""
    resized = Image.fromarray(mask).resize((change.width, change.height), Image.Resampling.NEAREST)
    return np.asarray(resized)[:, ::-1] if change.flip else np.asarray(resized)


def published_outline(rings: list[NDArray[np.float64]], change: Geometry) -> NDArray[np.uint8]:
    """What detectron2 does with outlines: scale, mirror, draw at the new size."""
    moved = []
    for ring in rings:
        points = ring.reshape(-1, 2).copy()
        points[:, 0] *= change.width * 1.0 / change.old_width
        points[:, 1] *= change.height * 1.0 / change.old_height
        if change.flip:
            points[:, 0] = change.width - points[:, 0]
        moved.append(points.reshape(-1))
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, change.height, change.width)))


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, st.booleans(), st.integers(0, 5), st.floats(0, 1), st.integers(0, 2**32))
def test_run_lengths_become_the_published_masks(
    old: tuple[int, int], new: tuple[int, int], flip: bool, count: int, density: float, seed: int
) -> None:
    change = geometry(old, new, flip)
    random = np.random.default_rng(seed)
    masks = (random.random((count, *old)) < density).astype(np.uint8)
    masks[:, random.random(old[0]) < 0.3] = 1  # rows that meet at the columns' ends
    masks[:, :, random.random(old[1]) < 0.3] = 1  # and runs over several columns
    runs = mask_runs([mask_to_rle(mask) for mask in masks], [None] * count, change)
    assert runs is not None
    dense = runs.dense().numpy()
    assert dense.shape == (count, *new)
    assert dense.dtype == np.uint8
    for mask, got in zip(masks, dense, strict=True):
        np.testing.assert_array_equal(got, published(mask, change))


@pytest.mark.parametrize("new", [(800, 1066), (480, 640), (333, 444), (777, 1036), (1333, 1000)])
@pytest.mark.parametrize("flip", [False, True])
def test_real_sizes(new: tuple[int, int], flip: bool) -> None:
    change = geometry((480, 640), new, flip)
    y, x = np.mgrid[:480, :640]
    masks = [
        ((y - 100) ** 2 + (x - 630) ** 2 < 90**2).astype(np.uint8),
        ((x + y) % 97 < 11).astype(np.uint8),
        np.zeros((480, 640), np.uint8),
        np.ones((480, 640), np.uint8),
    ]
    runs = mask_runs([mask_to_rle(mask) for mask in masks], [None] * 4, change)
    assert runs is not None
    for mask, got in zip(masks, runs.dense().numpy(), strict=True):
        np.testing.assert_array_equal(got, published(mask, change))


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, st.booleans(), st.integers(0, 2**32))
def test_outlines_become_the_published_masks(
    old: tuple[int, int], new: tuple[int, int], flip: bool, seed: int
) -> None:
    change = geometry(old, new, flip)
    random = np.random.default_rng(seed)
    outlines = [
        [
            random.uniform(-0.1, 1.1, (random.integers(3, 9), 2)).__mul__([old[1], old[0]]).ravel()
            for _ in range(random.integers(1, 4))
        ]
        for _ in range(random.integers(1, 4))
    ]
    before = [[ring.copy() for ring in rings] for rings in outlines]
    runs = mask_runs([None] * len(outlines), outlines, change)
    assert runs is not None
    for rings, got in zip(outlines, runs.dense().numpy(), strict=True):
        np.testing.assert_array_equal(got, published_outline(rings, change))
    for rings, kept in zip(outlines, before, strict=True):  # they are views of the dataset
        assert all(np.array_equal(ring, other) for ring, other in zip(rings, kept, strict=True))


def test_outlines_come_first_and_lines_are_none() -> None:
    change = geometry((20, 30), (40, 60), True)
    mask = np.zeros((20, 30), np.uint8)
    mask[2:9, 3:20] = 1
    rle, ring, line = mask_to_rle(mask), np.array([1.0, 1, 12, 1, 12, 15]), np.array([1.0, 1, 5, 5])
    runs = mask_runs([rle, rle, rle, rle], [None, [line, ring], [ring], [line]], change)
    assert runs is not None
    expected = [published(mask, change), *[published_outline([ring], change)] * 2, published(mask, change)]
    np.testing.assert_array_equal(runs.dense().numpy(), np.stack(expected))
    assert mask_runs([rle, None], [None, [line]], change) is None
    nothing = mask_runs([], [], change)
    assert nothing is not None
    assert nothing.dense().shape == (0, 40, 60)


def test_they_travel_small() -> None:
    change = geometry((480, 640), (800, 1066), False)
    y, x = np.mgrid[:480, :640]
    discs = [((y - 240) ** 2 + (x - 40 * i) ** 2 < 60**2).astype(np.uint8) for i in range(16)]
    runs = mask_runs([mask_to_rle(mask) for mask in discs], [None] * 16, change)
    assert runs is not None
    dense = runs.dense()
    assert len(pickle.dumps(runs)) * 100 < dense.numel()
    assert pickle.loads(pickle.dumps(runs)).dense().equal(dense)


def test_run_lengths_of_another_size_are_refused() -> None:
    rle = mask_to_rle(np.ones((4, 5), np.uint8))
    with pytest.raises(TrainingError, match="do not cover the 30 pixels"):
        mask_runs([rle], [None], geometry((5, 6), (10, 12), False))
