from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.training.config import AugmentConfig, source
from partseg.training.data import TrainingImages, collate, image_counts, pool
from partseg.training.sampler import SampleKey

PLAIN = AugmentConfig(short_sides=(64, 64), long_side=200, flip=0.0)


def test_labels_are_positions_in_the_vocabulary(boxes: Dataset) -> None:
    everything = source(boxes, "train")
    assert everything.names == ("box", "box:top", "thing")
    sample = TrainingImages([everything], PLAIN)[SampleKey(source=0, row=0, seed=1)]
    assert sample.target.labels.tolist() == [0, 1]
    parts = source(boxes, "train", names=frozenset({"box:top"}))
    sample = TrainingImages([parts], PLAIN)[SampleKey(source=0, row=0, seed=1)]
    assert sample.target.labels.tolist() == [0]
    with pytest.raises(TrainingError, match="no category 'lid'"):
        source(boxes, "train", names=frozenset({"lid"}))


def test_boxes_and_masks_follow_the_image(boxes: Dataset) -> None:
    everything = source(boxes, "train")
    for flip in (0.0, 1.0):
        augment = AugmentConfig(short_sides=(128,), sampling="choice", long_side=400, flip=flip)
        for row in (0, 1):
            sample = TrainingImages([everything], augment)[SampleKey(source=0, row=row, seed=3)]
            assert sample.image.dtype == torch.uint8
            assert min(sample.image.shape[1:]) == 128
            masks = sample.target.masks
            assert masks is not None
            assert masks.shape[1:] == sample.image.shape[1:]
            for box, mask in zip(sample.target.boxes, masks, strict=True):
                y, x = torch.nonzero(mask, as_tuple=True)
                tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
                torch.testing.assert_close(box, tight, atol=1.0, rtol=0)
            bright = sample.image.float().mean(0) > 110
            agree = (bright & masks[0].bool()).sum() / (bright | masks[0].bool()).sum()
            assert agree > 0.85


def test_what_a_key_gives_depends_on_the_key_alone(boxes: Dataset) -> None:
    augment = AugmentConfig(short_sides=(48, 96), long_side=200)
    images = TrainingImages([source(boxes, "train")], augment)
    again = pickle.loads(pickle.dumps(images))
    shapes = set()
    for seed in range(12):
        key = SampleKey(source=0, row=2, seed=seed)
        first, second = images[key], again[key]
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.target.boxes, second.target.boxes)
        shapes.add(tuple(first.image.shape))
    assert len(shapes) > 3


def test_which_images_are_used(boxes: Dataset) -> None:
    def rows(**options: object) -> list[int]:
        chosen = pool(source(boxes, "train", **options))  # type: ignore[arg-type]
        return sorted(int(row) for group in chosen.groups for row in group)

    assert rows() == list(range(6))  # neither the crowd nor the empty image
    assert rows(keep_empty=True) == list(range(8))
    assert rows(annotation="image") == [7]
    assert rows(annotation="image", keep_empty=True) == [7]
    with pytest.raises(TrainingError, match="no image"):
        rows(names=frozenset({"thing"}))


def test_a_batch_has_images_of_one_orientation(boxes: Dataset) -> None:
    split = boxes.split("train")
    for group in pool(source(boxes, "train")).groups:
        assert len({split[int(row)].width > split[int(row)].height for row in group}) == 1


def test_crowds_are_no_targets_and_image_labels_are(boxes: Dataset) -> None:
    images = TrainingImages(
        [source(boxes, "train"), source(boxes, "train", annotation="image")],
        PLAIN,
    )
    crowd = images[SampleKey(source=0, row=6, seed=0)].target
    assert crowd.boxes.shape == (0, 4)
    assert crowd.masks is not None
    assert crowd.masks.shape[0] == 0
    labels = images[SampleKey(source=1, row=7, seed=0)].target.labels
    assert sorted(labels.tolist()) == [0, 2]


def test_parsed_parts_come_without_masks(boxes: Dataset) -> None:
    parsed = source(boxes, "train", annotation="parsed_part")
    images = TrainingImages([parsed], PLAIN)
    batch = collate([images[SampleKey(source=0, row=0, seed=0)]], [parsed])
    assert batch.annotation == "parsed_part"
    assert batch.targets[0].masks is None
    assert list(batch.image_ids) == [boxes.split("train")[0].image_id]


def test_image_counts(boxes: Dataset) -> None:
    np.testing.assert_array_equal(image_counts(source(boxes, "train")), [6, 6, 0])
