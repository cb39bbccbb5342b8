from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.models.structures import Batch
from partseg.training.config import AugmentConfig, source
from partseg.training.data import TrainingImages, collate, image_counts, pool
from partseg.training.sampler import SampleKey
from tests.training.conftest import write_dataset

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
    assert batch.to(torch.device("cpu")).targets[0].masks is None
    assert list(batch.image_ids) == [boxes.split("train")[0].image_id]


def test_image_counts(boxes: Dataset) -> None:
    np.testing.assert_array_equal(image_counts(source(boxes, "train")), [6, 6, 0])


def reference(path: Path, height: int, width: int, flip: bool) -> np.ndarray:
    """The published way to a pixel: EXIF, RGB, Pillow's bilinear resize, mirror."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if flip else pixels


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("row", [0, 1])
def test_pixels_boxes_and_outlines_are_the_published_ones(photos: Dataset, row: int, flip: float) -> None:
    augment = AugmentConfig(short_sides=(90,), sampling="choice", long_side=200, flip=flip)
    split = photos.split("train")
    sample = TrainingImages([source(photos, "train")], augment)[SampleKey(source=0, row=row, seed=2)]
    expected = reference(split.image_path(row), 90, 120, bool(flip))
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0), expected)
    # The first is drawn from its outline, not enlarged from its run-lengths; the second leaves the image.
    boxes = np.float32([[45, 30, 76.5, 49.5], [105.15, 75.45, 120, 90]])
    ring = np.array([10.25, 5, 70.5, 8, 60, 41.75, 22, 58]).reshape(-1, 2) * [120 / 80, 90 / 60]
    block = np.zeros((90, 120), np.uint8)
    block[30:50, 45:77] = 1
    if flip:
        boxes[:, 0::2] = 120 - boxes[:, 2::-2]
        ring[:, 0] = 120 - ring[:, 0]
        block = block[:, ::-1]
    np.testing.assert_allclose(sample.target.boxes, boxes, rtol=1e-6)
    masks = sample.target.masks
    assert masks is not None
    drawn = coco_mask.decode(coco_mask.frPyObjects([ring.ravel()], 90, 120))
    np.testing.assert_array_equal(masks[0], drawn[:, :, 0])
    assert (masks[1].numpy() != block).mean() < 0.02
    assert sample.target.labels.tolist() == [0, 1]


def test_ignored_annotations_are_used_where_they_shall(photos: Dataset) -> None:
    def labels(**options: Any) -> list[int]:
        images = TrainingImages([source(photos, "train", **options)], PLAIN)
        return images[SampleKey(source=0, row=1, seed=0)].target.labels.tolist()

    assert labels() == [0, 1]
    assert labels(use_ignored=True) == [0, 1, 0]
    heads = source(photos, "train", names=frozenset({"cat"}), keep_empty=True)
    assert pool(heads).groups[0].tolist() == [0, 1]
    with pytest.raises(TrainingError, match="no image"):
        pool(source(photos, "train", names=frozenset({"cat"}), use_ignored=True))


def test_rare_classes_repeat_their_images(photos: Dataset, boxes: Dataset) -> None:
    assert pool(source(photos, "train")).factors is None
    # As published, a crowd makes its class occur: cats are in one image of two.
    factors = pool(source(photos, "train", repeat_threshold=0.9)).factors
    assert factors is not None
    np.testing.assert_allclose(factors[0], [1, np.sqrt(0.9 / 0.5)])
    # Only usable images count: without the two empty ones of eight, every image has a box and a top.
    factors = pool(source(boxes, "train", repeat_threshold=0.9)).factors
    assert factors is not None
    np.testing.assert_allclose(np.concatenate(factors), 1.0)
    chosen = pool(source(boxes, "train", repeat_threshold=0.9, keep_empty=True))
    assert chosen.factors is not None
    # Eight images, seven with a box (one of them a crowd), six with a top.
    of_row = dict(zip(np.concatenate(chosen.groups).tolist(), np.concatenate(chosen.factors), strict=True))
    assert of_row == pytest.approx(
        {**dict.fromkeys(range(6), np.sqrt(0.9 * 8 / 6)), 6: np.sqrt(0.9 * 8 / 7), 7: 1}
    )
    labelled = pool(source(boxes, "train", annotation="image", repeat_threshold=0.5)).factors
    assert labelled is not None
    np.testing.assert_allclose(labelled[0], [1.0])


def test_every_source_has_its_own_changes(boxes: Dataset) -> None:
    small = AugmentConfig(short_sides=(32,), sampling="choice", long_side=200, flip=0.0)
    strong = small.model_copy(update={"strong": True})
    images = TrainingImages(
        [
            source(boxes, "train"),
            source(boxes, "train", augment=small),
            source(boxes, "train", augment=strong),
        ],
        PLAIN,
    )
    plain, weak, changed = (images[SampleKey(source=one, row=0, seed=4)] for one in range(3))
    assert min(plain.image.shape[1:]) == 64
    assert min(weak.image.shape[1:]) == min(changed.image.shape[1:]) == 32
    assert (weak.image != changed.image).float().mean() > 0.5
    assert torch.equal(weak.target.boxes, changed.target.boxes)
    again = images[SampleKey(source=2, row=0, seed=4)]
    assert torch.equal(again.image, changed.image)


def test_a_batch_unfolds_on_its_device(boxes: Dataset) -> None:
    sources = [source(boxes, "train")]
    images = TrainingImages(sources, PLAIN)
    samples = [images[SampleKey(source=0, row=row, seed=0)] for row in (0, 2, 6)]
    packed = pickle.loads(pickle.dumps(collate(samples, sources)))
    batch = packed.to(torch.device("cpu"))
    assert type(batch) is Batch
    assert len(packed.targets) == 0  # whoever forgets to unfold it learns nothing, not wrong things
    for sample, image, target in zip(samples, batch.images, batch.targets, strict=True):
        assert torch.equal(sample.image, image)
        assert sample.target.masks is not None
        assert target.masks is not None
        assert torch.equal(sample.target.masks, target.masks)
        assert torch.equal(sample.target.boxes, target.boxes)
        assert torch.equal(sample.target.labels, target.labels)
    assert list(batch.image_ids) == list(packed.image_ids)


def test_what_a_worker_is_sent_does_not_grow_with_the_dataset(
    boxes: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    large = write_dataset(tmp_path_factory.mktemp("many"), images=80)
    images = [TrainingImages([source(one, "train")], PLAIN) for one in (boxes, large)]
    for one in images:
        one[SampleKey(source=0, row=3, seed=0)]  # what has been opened stays behind
    small, many = (len(pickle.dumps(one)) for one in images)
    assert many < small + 100 < 3000
