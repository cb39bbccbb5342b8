"""Training images straight from the common layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import Dataset

from partseg.errors import TrainingError
from partseg.layout import ImageRecord
from partseg.models.images import resize, resized_shape
from partseg.models.structures import Batch, Target
from partseg.training.config import AugmentConfig, TrainSource
from partseg.training.sampler import Pool, SampleKey

# Boxes thinner than this cannot be coded; the published training drops them too.
SMALLEST_SIDE = 1e-5

# How worker processes start. A plain fork copies locks that threads of this process may hold.
WORKER_START = "forkserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training image: uint8 [3, h, w]; ``source`` is a position in the list of sources."""

    image: Tensor
    target: Target
    image_id: int
    source: int


class TrainingImages(Dataset[Sample]):
    """All images of several sources; what a :class:`SampleKey` gives depends on the key alone."""

    def __init__(self, sources: Sequence[TrainSource], augment: AugmentConfig) -> None:
        self.sources, self.augment = tuple(sources), augment
        self.labels = [_label_of(source) for source in sources]

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read, resize and perhaps flip one image, and its annotations with it."""
        source, labels = self.sources[key.source], self.labels[key.source]
        record = source.split[key.row]
        random = np.random.default_rng(key.seed)
        height, width = resized_shape(
            record.height, record.width, _short_side(self.augment, random), self.augment.long_side
        )
        flip = bool(random.random() < self.augment.flip)
        image = resize(source.split.read_image(key.row), height, width)
        if flip:
            image = image[:, ::-1]
        target = (
            _image_target(record, labels)
            if source.annotation == "image"
            else _box_target(record, labels, height, width, flip=flip, masks=source.annotation == "part")
        )
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            target=target,
            image_id=record.image_id,
            source=key.source,
        )


def collate(samples: list[Sample], sources: Sequence[TrainSource]) -> Batch:
    """Samples of one source as a batch; its text comes later, so worker processes need not copy it."""
    return Batch(
        images=[sample.image for sample in samples],
        targets=[sample.target for sample in samples],
        annotation=sources[samples[0].source].annotation,
        text=torch.empty(0, 0),
        image_ids=[sample.image_id for sample in samples],
        source=samples[0].source,
    )


def pool(source: TrainSource) -> Pool:
    """The images of a source that can be trained on, in two groups of like shape.

    Raises:
        TrainingError: there is none.
    """
    images = source.split.table("images")
    usable = (
        _labelled(images, source) if source.annotation == "image" else _annotated(source, images.num_rows)
    )
    if source.keep_empty and source.annotation != "image":
        usable[:] = True
    wide = images["width"].to_numpy() > images["height"].to_numpy()
    groups = [np.flatnonzero(usable & wide), np.flatnonzero(usable & ~wide)]
    if not usable.any():
        raise TrainingError(
            f"no image of {source.split!r} has a usable annotation",
            fix="check the names of the categories and the kind of annotation",
        )
    return Pool(
        groups=tuple(group for group in groups if len(group)),
        batch_size=source.batch_size,
        ratio=source.ratio,
    )


def image_counts(source: TrainSource) -> NDArray[np.int64]:
    """In how many images of the split each class of the source occurs: [C]."""
    rows, labels = _annotations(source)
    pairs = np.unique(np.stack([rows, labels], axis=1), axis=0)
    return np.bincount(pairs[:, 1], minlength=len(source.categories))


def _annotated(source: TrainSource, count: int) -> NDArray[np.bool_]:
    usable = np.zeros(count, dtype=bool)
    usable[_annotations(source)[0]] = True
    return usable


def _annotations(source: TrainSource) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Image row and label of every usable annotation of the split."""
    table = source.split.table("annotations")
    counts = source.split.table("images")["ann_count"].to_numpy()
    rows = np.repeat(np.arange(len(counts)), counts)
    ids = np.array(sorted(source.categories), dtype=np.int64)
    category = table["category_id"].to_numpy().astype(np.int64)
    label = np.searchsorted(ids, category).clip(max=len(ids) - 1)
    usable = ids[label] == category
    for column in ("is_crowd", "is_ignore"):
        usable &= ~table[column].to_numpy().astype(bool)
    return rows[usable], label[usable]


def _labelled(images: Any, source: TrainSource) -> NDArray[np.bool_]:
    used = set(source.categories)
    return np.array([not used.isdisjoint(ids or ()) for ids in images["pos_category_ids"].to_pylist()], bool)


def _label_of(source: TrainSource) -> dict[int, int]:
    return {category: label for label, category in enumerate(sorted(source.categories))}


def _short_side(augment: AugmentConfig, random: np.random.Generator) -> int:
    sides = augment.short_sides
    if augment.sampling == "range":
        return int(random.integers(sides[0], sides[1] + 1))
    return sides[int(random.integers(len(sides)))]


def _image_target(record: ImageRecord, labels: dict[int, int]) -> Target:
    found = [labels[int(c)] for c in record.pos_category_ids if int(c) in labels]
    return Target(boxes=torch.zeros(0, 4), labels=torch.tensor(found, dtype=torch.int64))


def _box_target(
    record: ImageRecord, labels: dict[int, int], height: int, width: int, *, flip: bool, masks: bool
) -> Target:
    scale = np.array([width / record.width, height / record.height] * 2)
    xywh = record.boxes_xywh * scale
    known = np.array([int(c) in labels for c in record.category_ids], dtype=bool)
    usable = known & ~record.is_crowd & ~record.is_ignore & (xywh[:, 2:] > SMALLEST_SIDE).all(axis=1)
    rows = np.flatnonzero(usable)
    xywh = xywh[rows]
    if flip:
        xywh[:, 0] = width - xywh[:, 0] - xywh[:, 2]
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    rles = [record.rles[row] for row in rows]
    decoded = None
    if masks and all(rle is not None for rle in rles):
        decoded = torch.from_numpy(_masks(rles, record, height, width, flip=flip))
    return Target(
        boxes=torch.from_numpy(xyxy.astype(np.float32)),
        labels=torch.tensor([labels[int(record.category_ids[row])] for row in rows], dtype=torch.int64),
        masks=decoded,
    )


def _masks(
    rles: Sequence[bytes | None], record: ImageRecord, height: int, width: int, *, flip: bool
) -> NDArray[np.uint8]:
    """Masks [N, height, width] 0/1, resized to the nearest source pixel."""
    if not rles:
        return np.zeros((0, height, width), dtype=np.uint8)
    size = [record.height, record.width]
    masks: NDArray[np.uint8] = coco_mask.decode([{"size": size, "counts": counts} for counts in rles])
    if (height, width) != masks.shape[:2]:
        rows = ((np.arange(height) + 0.5) * record.height / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * record.width / width).astype(np.int64)
        masks = masks[rows[:, None], columns[None, :]]
    if flip:
        masks = masks[:, ::-1]
    return np.ascontiguousarray(masks.transpose(2, 0, 1))
