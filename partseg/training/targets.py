"""What a training image teaches: boxes, labels and masks at its new size, as small as they travel best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from partseg.layout import ImageRecord
from partseg.models.structures import Target
from partseg.training.config import TrainSource
from partseg.training.masks import Geometry, MaskRuns, mask_runs

# Boxes thinner than this cannot be coded; the published training drops them too.
SMALLEST_SIDE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTarget:
    """A :class:`Target` before it reaches its device.

    Attributes:
        boxes: [N, 4] float32 xyxy px of the resized image.
        labels: [N] int64.
        masks: N masks, or None where the data has boxes only.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: MaskRuns | None = None

    def unfold(self, device: torch.device | str = "cpu") -> Target:
        """The target on a device."""
        return Target(
            boxes=torch.from_numpy(self.boxes).to(device),
            labels=torch.from_numpy(self.labels).to(device),
            masks=None if self.masks is None else self.masks.dense(device),
        )


class Labels:
    """Categories of a source to labels: positions in the ascending list of the categories in use."""

    def __init__(self, source: TrainSource) -> None:
        self._ids = np.array(sorted(source.categories), dtype=np.int64)

    def __call__(self, category_ids: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Labels, and which of the categories are in use (the label of another one means nothing)."""
        ids = category_ids.astype(np.int64)
        if not len(self._ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        labels = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return labels, self._ids[labels] == ids


def image_target(record: ImageRecord, labels: Labels) -> PackedTarget:
    """The labels of a whole image."""
    found, used = labels(record.pos_category_ids)
    return PackedTarget(boxes=np.zeros((0, 4), np.float32), labels=found[used])


def box_target(
    source: TrainSource, row: int, record: ImageRecord, labels: Labels, geometry: Geometry
) -> PackedTarget:
    """Boxes, labels and, for ``box`` annotations, masks; crowds and other categories are left out."""
    found, used = labels(record.category_ids)
    used &= ~record.is_crowd
    if not source.use_ignored:
        used &= ~record.is_ignore
    boxes = moved_boxes(record.boxes_xywh, geometry)
    used &= ((boxes[:, 2:] - boxes[:, :2]) > SMALLEST_SIDE).all(axis=1)
    kept = np.flatnonzero(used)
    masks = None
    if source.annotation == "box":
        outlines = source.split.polygons(row)
        masks = mask_runs([record.rles[i] for i in kept], [outlines[i] for i in kept], geometry)
    return PackedTarget(boxes=boxes[kept], labels=found[kept], masks=masks)


def moved_boxes(xywh: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float32]:
    """Boxes xywh [N, 4] of the old image as xyxy [N, 4] of the new one, cut off at its edges.

    The corners are rounded to float32 before and after, as in the published training: equal to the last bit.
    """
    start = xywh[:, :2].astype(np.float32)
    corners = np.concatenate([start, start + xywh[:, 2:].astype(np.float32)], axis=1).astype(np.float64)
    height, width = geometry.height, geometry.width
    corners[:, 0::2] *= width * 1.0 / geometry.old_width
    corners[:, 1::2] *= height * 1.0 / geometry.old_height
    if geometry.flip:
        corners[:, 0::2] = width - corners[:, 2::-2]
    return corners.clip(0, [width, height, width, height]).astype(np.float32)
