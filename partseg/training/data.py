"""Training images straight from the common layout.

A worker process opens the memory-mapped split by its path and holds no annotation of its own. What it sends
is small: pixels, and masks as runs (:mod:`partseg.training.masks`). Pixels, boxes and masks are those of the
published training (detectron2's mapper). So Pillow decodes and resizes: torchvision's transforms resize three
times as fast, but 1 pixel in 3000 comes out one step brighter or darker.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from partseg.errors import TrainingError
from partseg.layout.columns import view
from partseg.models.images import resize, resized_shape
from partseg.models.structures import Batch, Target
from partseg.training.config import AugmentConfig, TrainSource
from partseg.training.masks import Geometry
from partseg.training.repeat import images_per_class, repeat_factors
from partseg.training.sampler import Pool, SampleKey
from partseg.training.strong import strong
from partseg.training.targets import Labels, PackedTarget, box_target, image_target


def _worker_start() -> Any:
    """How worker processes start.

    A plain fork copies locks that threads of this process may hold, and pages that it goes on changing. The
    workers of a fork server that has imported what they need share it, which is nine tenths of their memory.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["partseg.training.loading"])
    return context


WORKER_START = _worker_start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training image.

    Attributes:
        image: uint8 [3, h, w]; a view of interleaved pixels.
        packed: boxes, labels, masks.
        image_id: of the layout.
        source: position in the list of sources.
    """

    image: Tensor
    packed: PackedTarget
    image_id: int
    source: int

    @property
    def target(self) -> Target:
        """Boxes, labels and masks as the model takes them."""
        return self.packed.unfold()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch(Batch):
    """A batch on its way from a worker. It has no ``targets`` until :meth:`to` unfolds them on a device.

    Attributes:
        packed: one per image.
    """

    packed: list[PackedTarget]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        counts = self.image_counts
        return Batch(
            images=[image.to(device, non_blocking=True) for image in self.images],
            targets=[target.unfold(device) for target in self.packed],
            annotation=self.annotation,
            text=self.text.to(device),
            image_counts=None if counts is None else counts.to(device),
            image_ids=self.image_ids,
            source=self.source,
        )

    def pin_memory(self) -> PackedBatch:
        """The batch with its images where a GPU can fetch them (torch's ``DataLoader`` calls this)."""
        return replace(self, images=[image.pin_memory() for image in self.images])


class TrainingImages(Dataset[Sample]):
    """All images of several sources; what a :class:`SampleKey` gives depends on the key alone.

    Args:
        sources: the datasets.
        augment: of the sources that have no own.
    """

    def __init__(self, sources: Sequence[TrainSource], augment: AugmentConfig) -> None:
        self.sources = tuple(sources)
        self.augments = tuple(source.augment or augment for source in sources)
        self._labels = [Labels(source) for source in sources]
        for source in self.sources:
            if len(source.split):  # the first use of a dataset builds its cache: not in every worker
                source.split.polygons(0)
        pa.default_memory_pool().release_unused()

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read, resize and perhaps flip one image, and its annotations with it."""
        return self.sample(key)

    def sample(self, key: SampleKey, mark: Callable[[str], None] = lambda _: None) -> Sample:
        """As ``self[key]``; ``mark`` is told what was just done: read, resize, strong, target.

        Raises:
            SourceError: the image file is missing or damaged.
            LayoutError: the image has another size than its record says.
        """
        source, labels, augment = (
            self.sources[key.source],
            self._labels[key.source],
            self.augments[key.source],
        )
        record, random = source.split[key.row], np.random.default_rng(key.seed)
        height, width = resized_shape(
            record.height, record.width, _short_side(augment, random), augment.long_side
        )
        geometry = Geometry(
            old_height=record.height,
            old_width=record.width,
            height=height,
            width=width,
            flip=bool(random.random() < augment.flip),
        )
        pixels = source.split.read_image(key.row)
        mark("read")
        image = torch.from_numpy(resize(pixels, height, width))
        if geometry.flip:
            image = image.flip(1)  # forty times as fast as numpy here
        mark("resize")
        if augment.strong:
            image = torch.from_numpy(strong(image.numpy(), random))
            mark("strong")
        target = (
            image_target(record, labels)
            if source.annotation == "image"
            else box_target(source, key.row, record, labels, geometry)
        )
        mark("target")
        return Sample(
            image=image.permute(2, 0, 1), packed=target, image_id=record.image_id, source=key.source
        )


def collate(samples: list[Sample], sources: Sequence[TrainSource]) -> PackedBatch:
    """Samples of one source as a batch; its text comes later, so worker processes need not copy it."""
    return PackedBatch(
        images=[sample.image for sample in samples],
        targets=[],
        annotation=sources[samples[0].source].annotation,
        text=torch.empty(0, 0),
        image_ids=[sample.image_id for sample in samples],
        source=samples[0].source,
        packed=[sample.packed for sample in samples],
    )


def pool(source: TrainSource) -> Pool:
    """The images of a source that can be trained on, in two groups of like shape.

    As published, an image is wide if its width exceeds its height, usable if it has an annotation that is
    not a crowd's, and repeated by its classes' shares among the usable images, crowds included.

    Raises:
        TrainingError: there is none.
    """
    images = source.split.batch("images")
    rows, _ = _annotations(source)
    usable = np.full(images.num_rows, source.keep_empty and source.annotation != "image")
    usable[rows] = True
    if not usable.any():
        raise TrainingError(
            f"no image of {source.split!r} has a usable annotation",
            fix="check the names of the categories and the kind of annotation",
        )
    wide = view(images["width"]) > view(images["height"])
    groups = tuple(
        group for group in (np.flatnonzero(usable & wide), np.flatnonzero(usable & ~wide)) if len(group)
    )
    factors = None
    if source.repeat_threshold:
        rows, labels = _annotations(source, crowds=True)
        place = np.cumsum(usable) - 1
        seen = usable[rows]
        of_image = repeat_factors(place[rows[seen]], labels[seen], int(usable.sum()), source.repeat_threshold)
        factors = tuple(of_image[place[group]] for group in groups)
    return Pool(groups=groups, batch_size=source.batch_size, ratio=source.ratio, factors=factors)


def image_counts(source: TrainSource) -> NDArray[np.int64]:
    """In how many images of the split each class of the source occurs: [C]."""
    rows, labels = _annotations(source)
    return images_per_class(rows, labels, len(source.categories))


def _annotations(source: TrainSource, *, crowds: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Image row and label of every usable annotation of the split, or of every label of an image."""
    images = source.split.batch("images")
    if source.annotation == "image":
        column = images["pos_category_ids"]
        counts, category = np.diff(view(column.offsets)), view(column.flatten())
        usable = np.ones(len(category), np.bool_)
    else:
        table = source.split.batch("annotations")
        counts, category = view(images["ann_count"]), view(table["category_id"])
        usable = np.ones(len(category), np.bool_) if crowds else ~view(table["is_crowd"]).view(np.bool_)
        if not source.use_ignored:
            usable &= ~view(table["is_ignore"]).view(np.bool_)
    rows = np.repeat(np.arange(len(counts)), counts)
    labels, used = Labels(source)(category)
    usable &= used
    return rows[usable], labels[usable]


def _short_side(augment: AugmentConfig, random: np.random.Generator) -> int:
    sides = augment.short_sides
    if augment.sampling == "range":
        return int(random.integers(sides[0], sides[1] + 1))
    return sides[int(random.integers(len(sides)))]
