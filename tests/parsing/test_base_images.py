"""Base images: what they lend, and how many of them are remembered."""

from __future__ import annotations

import pytest
import torch

from partseg.errors import LayoutError
from partseg.layout import Dataset
from partseg.parsing.base_images import BaseImages, base_pixels
from partseg.parsing.descriptors import Describer
from partseg.parsing.index import BaseIndex, build_index
from tests.parsing.conftest import SIZE, masks, picture

PARTS = {2, 3}


def opened(dataset: Dataset, describer: Describer, keep: int = 2**30) -> BaseImages:
    split = dataset.split("train")
    index = build_index(split, describer, object_ids={1, 4}, part_ids=PARTS)
    return BaseImages(split, index, describer, part_ids=PARTS, keep=keep)


def test_parts_are_kept_on_the_grid_of_patches(base_dataset: Dataset, describer: Describer) -> None:
    image = opened(base_dataset, describer).get(3)
    assert image.category_ids == (2, 3)
    assert image.features.grid == (12, 12)
    assert image.grids.shape == (2, 12, 12)
    for grid, mask in zip(image.grids, masks(8), strict=True):
        covered = torch.from_numpy(mask).view(12, 4, 12, 4).float().mean(dim=(1, 3))
        assert grid[covered == 1].all()
        assert not grid[covered == 0].any()


def test_only_wanted_parts_are_lent(base_dataset: Dataset, describer: Describer) -> None:
    split = base_dataset.split("train")
    index = BaseIndex(tokens=torch.ones(1, 32), image_ids=torch.tensor([2]))
    assert BaseImages(split, index, describer, part_ids={3, 5}).get(2).category_ids == (3,)
    none = BaseImages(split, index, describer, part_ids={5}).get(2)
    assert none.grids.shape == (0, 12, 12)


def test_memory_is_bounded_by_bytes(
    base_dataset: Dataset, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(base_dataset, describer).get(2)
    assert one.byte_size == 144 * 32 * 4 + 32 * 4 + 144 * 4 + 2 * 144
    read: list[int] = []
    original = BaseImages._read
    monkeypatch.setattr(BaseImages, "_read", lambda self, i: (read.append(i), original(self, i))[1])

    def ask(keep: int) -> list[int]:
        images = opened(base_dataset, describer, keep)
        read.clear()
        for image_id in (2, 3, 2, 2, 3):
            assert images.get(image_id).image_id == image_id
        return list(read)

    assert ask(2 * one.byte_size) == [2, 3]
    assert ask(2 * one.byte_size - 1) == [2, 3, 2, 3]
    assert ask(0) == [2, 3, 2, 3]


def test_an_index_of_other_images_is_refused(base_dataset: Dataset, describer: Describer) -> None:
    index = BaseIndex(tokens=torch.ones(2, 32), image_ids=torch.tensor([2, 77]))
    with pytest.raises(LayoutError, match="1 images the base dataset does not have"):
        BaseImages(base_dataset.split("train"), index, describer, part_ids=PARTS)


def test_base_images_have_no_longest_side(describer: Describer) -> None:
    tall = picture(0).repeat(4, axis=0)
    assert base_pixels(tall, describer).shape == (3, 4 * SIZE, SIZE)
    assert base_pixels(tall[:100].transpose(1, 0, 2), describer).shape == (3, SIZE, 100)
    assert torch.equal(base_pixels(picture(0), describer), describer.normalise(picture(0)))
