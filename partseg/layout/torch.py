"""A split as a map-style dataset of PyTorch. The only module of the layout that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from partseg.layout.runs import rle_decode_many
from partseg.layout.split import ImageRecord, Split

__all__ = ["TorchSplit", "collate"]

Sample = tuple[torch.Tensor | None, dict[str, Any]]


class TorchSplit(TorchDataset[Any]):
    """Images and targets in the form that torchvision's detection models take.

    It pickles the path of the dataset and its own settings, so that every worker of a ``DataLoader`` (fork or
    spawn) maps the same pages instead of holding a copy.

    Args:
        split: opened with ``image_root`` if ``images`` is wanted.
        images: read the image, uint8 [3, H, W] RGB; otherwise it is None.
        masks: "decoded" for uint8 [N, H, W] (zeros where there is only a box), "rle" for COCO's compressed
            counts (None where there is only a box), "none" to leave them out.
        category_ids: keep these categories and number them 1, 2, ... in this order; by default all are kept
            and a label is the layout's category id. 0 is free for the background either way.
        transforms: called with the image and the target; what it returns is the sample. A function of a
            module, so that it can be pickled.
    """

    def __init__(
        self,
        split: Split,
        *,
        images: bool = True,
        masks: Literal["decoded", "rle", "none"] = "decoded",
        category_ids: Sequence[int] | None = None,
        transforms: Callable[[torch.Tensor | None, dict[str, Any]], Any] | None = None,
    ) -> None:
        self.split, self.images, self.masks, self.transforms = split, images, masks, transforms
        self.category_ids = None if category_ids is None else np.asarray(category_ids, np.int32)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        """Image ``index`` and its target.

        The target has ``image_id`` (int), ``boxes`` float32 [N, 4] xyxy in pixels, ``labels`` int64 [N],
        ``parents`` int64 [N] (position of a part's object in this target, or -1), ``area`` float32 [N],
        ``iscrowd`` bool [N] and ``masks``.
        """
        record = self.split[index]
        image = None
        if self.images:
            image = torch.from_numpy(self.split.read_image(index).transpose(2, 0, 1).copy())
        target = self._target(record)
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def _target(self, record: ImageRecord) -> dict[str, Any]:
        count = len(record.category_ids)
        rows, labels = np.arange(count), record.category_ids.astype(np.int64)
        if self.category_ids is not None:
            matches = record.category_ids[:, None] == self.category_ids[None, :]
            rows = np.flatnonzero(matches.any(axis=1))
            labels = matches[rows].argmax(axis=1).astype(np.int64) + 1
        position = np.full(count + 1, -1)  # one more, so that parent -1 stays -1
        position[rows] = np.arange(len(rows))
        boxes = record.boxes_xywh[rows]
        target: dict[str, Any] = {
            "image_id": record.image_id,
            "boxes": torch.from_numpy(
                np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
            ),
            "labels": torch.from_numpy(labels),
            "parents": torch.from_numpy(position[record.parent_rows[rows]]),
            "area": torch.from_numpy(record.areas[rows].astype(np.float32)),
            "iscrowd": torch.from_numpy(record.is_crowd[rows].copy()),
        }
        rles = [record.rles[row] for row in rows]
        if self.masks == "decoded":
            target["masks"] = torch.from_numpy(_decoded(rles, record.height, record.width))
        elif self.masks == "rle":
            size = [record.height, record.width]
            target["masks"] = [None if rle is None else {"size": size, "counts": rle} for rle in rles]
        return target


def collate(samples: Iterable[Sample]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A batch as tuples of images and targets, for ``DataLoader(collate_fn=collate)``: sizes may differ."""
    images, targets = zip(*samples, strict=True)
    return images, targets


def _decoded(rles: Sequence[bytes | None], height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    masks = np.zeros((len(rles), height, width), np.uint8)
    drawn = [row for row, rle in enumerate(rles) if rle is not None]
    masks[drawn] = rle_decode_many([rle for rle in rles if rle is not None], height, width)
    return masks
