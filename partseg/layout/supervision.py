"""A record as the arguments of ``supervision.Detections``; supervision need not be installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partseg.layout.records import Category
from partseg.layout.runs import rle_decode_many
from partseg.layout.split import ImageRecord


def to_detections(record: ImageRecord, categories: Sequence[Category]) -> dict[str, Any]:
    """What to call ``supervision.Detections`` with: ``Detections(**to_detections(record, categories))``.

    Returns:
        ``xyxy`` float32 [N, 4] in pixels, ``class_id`` int64 [N] (the layout's category ids), ``mask`` bool
        [N, H, W] if every annotation has one, ``confidence`` float32 [N] if every annotation has a score, and
        in ``data`` [N] each ``class_name``, ``ann_id`` and ``parent`` (position of a part's object, or -1).
    """
    names = {item.category_id: item.name for item in categories}
    corner, size = record.boxes_xywh[:, :2], record.boxes_xywh[:, 2:]
    rles = [rle for rle in record.rles if rle is not None]
    masked, scored = len(rles) == len(record.rles), not np.isnan(record.scores).any()
    return {
        "xyxy": np.concatenate([corner, corner + size], axis=1).astype(np.float32),
        "class_id": record.category_ids.astype(np.int64),
        "mask": rle_decode_many(rles, record.height, record.width) if masked else None,
        "confidence": record.scores if scored else None,
        "data": {
            "class_name": np.array([names[key] for key in record.category_ids.tolist()], dtype=np.str_),
            "ann_id": record.ann_ids,
            "parent": record.parent_rows,
        },
    }
