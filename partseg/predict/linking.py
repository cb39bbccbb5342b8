"""Which object a detected part belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from partseg.layout import mask_to_rle, rle_area

# "Contains most of it": a part that is mostly outside every object of its class belongs to none of them.
MOST = 0.5


def link_parts(
    labels: NDArray[np.int64],
    boxes: NDArray[np.float32],
    rles: Sequence[bytes | None],
    size: tuple[int, int],
    owners: Sequence[int],
) -> NDArray[np.int64]:
    """Give every part the object of its class that contains most of its mask, or of its box without masks.

    Args:
        labels: [N] classes of the detections, best score first: of two objects that contain a part equally,
            the better one has it.
        boxes: [N, 4] xyxy px; they decide for a detection with an empty mask or none.
        rles: N compressed COCO run-lengths, or None.
        size: height and width of the image.
        owners: [C], class of the objects that a class is a part of, or -1.

    Returns:
        [N] row of the object each detection is a part of, or -1.
    """
    result = np.full(len(labels), -1, np.int64)
    nothing = mask_to_rle(np.zeros(size, np.bool_))
    counts = [nothing if rle is None else rle for rle in rles]
    coded = [{"size": list(size), "counts": rle} for rle in counts]
    areas = np.array([rle_area(rle) for rle in counts], np.int64)  # pycocotools' own stops at 255 masks
    owner = np.asarray(owners, np.int64)[labels]
    for kind in np.unique(owner[owner >= 0]):
        parts, objects = np.flatnonzero(owner == kind), np.flatnonzero(labels == kind)
        if not len(objects):
            continue
        # With "crowds" COCO's overlap is the intersection over the area of the first: what is contained.
        inside = coco_mask.iou([coded[i] for i in parts], [coded[i] for i in objects], [1] * len(objects))
        empty = (areas[parts] == 0)[:, None] | (areas[objects] == 0)[None]
        inside = np.where(empty, _boxes_inside(boxes[parts], boxes[objects]), inside)
        best = inside.argmax(axis=1)
        linked = inside[np.arange(len(parts)), best] >= MOST
        result[parts[linked]] = objects[best[linked]]
    return result


def _boxes_inside(parts: NDArray[np.float32], objects: NDArray[np.float32]) -> NDArray[np.float64]:
    """[P, O]: how much of each part's box lies in each object's."""
    low = np.maximum(parts[:, None, :2], objects[None, :, :2])
    high = np.minimum(parts[:, None, 2:], objects[None, :, 2:])
    common = (high - low).clip(0).astype(np.float64).prod(axis=2)
    return np.asarray(common / (parts[:, 2:] - parts[:, :2]).prod(axis=1).clip(1e-9)[:, None])
