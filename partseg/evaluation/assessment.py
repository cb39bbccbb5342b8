"""Everything there is to say about evaluated predictions, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partseg.evaluation.assess import Assessed
from partseg.evaluation.bootstrap import LEVEL, differences, intervals, require_same_images, samples_of
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.errors_by_kind import errors_by_kind
from partseg.evaluation.part_confusion import confusion_of_parts
from partseg.evaluation.resampling import SEED
from partseg.evaluation.size_bins import size_bins
from partseg.evaluation.voc import VocAP

FORMAT = "partseg-evaluation-1"

LEAST_IMAGES = 5
"""Images that a class occurs in before its AP gets an interval: fewer say nothing about other images."""

_CURVES = (("0.50", (0,)), ("0.75", (5,)), ("0.50 to 0.95", tuple(range(10))))


def assessment(
    items: Sequence[Assessed],
    *,
    about: dict[str, Any],
    other: Sequence[Assessed] = (),
    samples: int = 0,
    seed: int = SEED,
) -> dict[str, Any]:
    """Numbers, classes, sizes, curves, and as far as asked for intervals, errors and a comparison.

    Errors by kind and the confusion of parts are there where an evaluation was made with ``details=True``.

    Args:
        items: evaluations of one model.
        about: what is said about the whole: dataset, split, predictions.
        other: the same evaluations of another model, which is compared with the first.
        samples: of the bootstrap; 0 for none.
        seed: of the samples.

    Raises:
        PredictionError: the two models were evaluated differently.
    """
    if other:
        require_same_images(items, other)
    return {
        "format": FORMAT,
        **about,
        "bootstrap": {"samples": samples, "seed": seed, "level": LEVEL} if samples else None,
        "evaluations": [
            _one(item, other[place] if other else None, samples, seed) for place, item in enumerate(items)
        ],
    }


def _one(item: Assessed, other: Assessed | None, samples: int, seed: int) -> dict[str, Any]:
    metrics = item.metrics()
    content: dict[str, Any] = {
        "name": item.name,
        "protocol": {"name": item.protocol.name, "meaning": item.protocol.meaning},
        "images": len(item.image_ids),
        "metrics": metrics,
        "result": item.result.as_dict(),
        "intervals": {},
        "class_intervals": {},
        "differences": {},
        **_details(item),
    }
    if samples and item.can_resample and item.image_ids:
        drawn = samples_of(item, samples, seed=seed)
        content["intervals"] = {k: v.as_dict() for k, v in intervals(metrics, drawn.metrics).items()}
        if item.table is not None:
            images = _images_of_classes(item.table)
            values = {
                row.category_id: row.ap
                for row in item.result.classes
                if images.get(row.category_id, 0) >= LEAST_IMAGES
            }
            found = intervals(values, drawn.classes)
            content["class_intervals"] = {str(key): value.as_dict() for key, value in found.items()}
        if other is not None:
            theirs = samples_of(other, samples, seed=seed)
            gaps = differences(metrics, other.metrics(), drawn.metrics, theirs.metrics)
            content["differences"] = {name: gap.as_dict() for name, gap in gaps.items()}
    return content


def _images_of_classes(table: DetectionTable) -> dict[int, int]:
    """In how many images each category occurs."""
    counted = table.truths[table.truths["ignored"] & np.uint8(1) == 0]
    pairs = np.unique(np.stack([counted["category_id"], counted["image_id"]]), axis=1)
    ids, numbers = np.unique(pairs[0], return_counts=True)
    return dict(zip(ids.tolist(), numbers.tolist(), strict=True))


def _details(item: Assessed) -> dict[str, Any]:
    """What only evaluations of objects and parts have."""
    found: dict[str, Any] = {"errors": None, "confusion": [], "sizes": [], "curves": []}
    table, state = item.table, item.state
    if table is None or item.protocol.family == "class_agnostic":
        return found
    ids = state.settings.category_ids
    found["sizes"] = [size.as_dict() for size in size_bins(table)]
    if isinstance(state, CocoAP):
        found["curves"] = _curves(state, table)
    if not isinstance(state, VocAP) and state.settings.details:
        found["errors"] = errors_by_kind(table, ids).as_dict()
        found["confusion"] = [part.as_dict() for part in confusion_of_parts(table, state.categories, ids)]
    return found


def _curves(state: CocoAP, table: Any) -> list[dict[str, Any]]:
    """Mean precision over the classes with truth at 101 recalls."""
    precision = state.curves(table, ranges=(0,)).precision[..., 0]  # [T, R, K]
    known = ~np.isnan(precision[0, 0])
    if not known.any():
        return []
    means = precision[:, :, known].mean(axis=2)
    return [
        {"overlap": name, "precision": [round(value, 6) for value in means[list(rows)].mean(axis=0).tolist()]}
        for name, rows in _CURVES
    ]
