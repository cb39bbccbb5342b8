"""The values that travel between the parts of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

Annotation = Literal["box", "image", "parsed_part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is known about one training image, in the pixels of the resized image.

    Attributes:
        boxes: [N, 4] float32 xyxy.
        labels: [N] int64, rows of the batch's text matrix. For image labels: one entry per label, boxes
            empty.
        masks: [N, h, w] uint8 0/1, or None where the data has boxes only.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def to(self, device: torch.device) -> Target:
        """The same target on another device."""
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return Target(boxes=self.boxes.to(device), labels=self.labels.to(device), masks=masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Training images of one dataset.

    Attributes:
        images: uint8 RGB [3, h, w] each, already resized.
        targets: one per image.
        annotation: ``box`` = boxes (with masks where the data has them) of objects and parts; ``image`` =
            labels of whole images; ``parsed_part`` = boxes written by the annotation parser.
        text: [C, D] float32, one row per class of this dataset; not normalised.
        image_counts: [C] number of training images per class. Given: the classification loss is federated.
        image_ids: for messages.
        source: position of the dataset in the training's list.
    """

    images: list[Tensor]
    targets: list[Target]
    annotation: Annotation
    text: Tensor
    image_counts: Tensor | None = None
    image_ids: Sequence[int] = ()
    source: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            images=[image.to(device, non_blocking=True) for image in self.images],
            targets=[target.to(device) for target in self.targets],
            text=self.text.to(device),
            image_counts=None if self.image_counts is None else self.image_counts.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """Regions of one image, best first.

    Attributes:
        boxes: [N, 4] float32 xyxy, in pixels of the network's input.
        logits: [N] float32, objectness.
        size: (height, width) of the image without padding, in the same pixels.
    """

    boxes: Tensor
    logits: Tensor
    size: tuple[int, int]

    def best(self, count: int) -> Proposals:
        """The first ``count`` of them."""
        return Proposals(boxes=self.boxes[:count], logits=self.logits[:count], size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What was found in one image, in the pixels of the original image, best score first.

    Attributes:
        boxes: [N, 4] float32 xyxy.
        scores: [N] float32 in 0..1.
        labels: [N] int64, rows of the text matrix.
        rles: N compressed COCO run-lengths (the ``counts`` bytes); N times None from a detector without a
            mask head.
        height: of the original image.
        width: of the original image.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rles: tuple[bytes | None, ...]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.scores)

    def masks(self) -> NDArray[np.bool_]:
        """The decoded masks, bool [N, height, width].

        Raises:
            ValueError: the detector has no mask head.
        """
        if None in self.rles:
            raise ValueError("these are boxes without masks")
        if not self.rles:
            return np.zeros((0, self.height, self.width), dtype=bool)
        coded = [{"size": [self.height, self.width], "counts": counts} for counts in self.rles]
        return np.asarray(coco_mask.decode(coded)).transpose(2, 0, 1).astype(bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedBoxes:
    """Regions of one image before any class is chosen, in the original image's pixels, best first.

    Attributes:
        proposals: [P, 4] float32 xyxy from the proposal network.
        refined: [P, 4] float32 xyxy after the region head's class-agnostic regression.
        objectness: [P] float32 in 0..1.
        class_scores: [P, C] float32, sqrt(class probability x objectness).
    """

    proposals: Tensor
    refined: Tensor
    objectness: Tensor
    class_scores: Tensor
