"""Recall of objects or parts whatever they are called: how much a detector finds, not how it names it.

This is COCOeval with ``useCats = 0``: all categories count as one, so the predictions of an image compete for
all of its truth together. It is no number of the original zoos, and stands apart from average precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partseg.evaluation.average_precision import accumulate, mean, recall_at
from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.coco import LIMITS, CocoAP
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import CategoryLike, SplitLike
from partseg.evaluation.matching import AREA_NAMES
from partseg.evaluation.predictions import Predictions
from partseg.layout.runs import Ints

ANY = 0
"""The category of all records."""


class ClassAgnosticRecall(CocoAP):
    """AR with 1, 10 and 100 predictions per image over all categories, and with 100 by size.

    Args: as :class:`~partseg.evaluation.coco.CocoAP`.
    """

    family = "class_agnostic"

    def result(self, table: DetectionTable | None = None) -> APResult:
        """The recalls; there are no classes."""
        table = self.table() if table is None else table
        largest = self.settings.per_cell
        recall = accumulate(table, (ANY,)).recall
        values = {f"mAR{limit}": recall_at(table, (ANY,), limit) for limit in LIMITS}
        values[f"mAR{largest}"] = recall[:, :, 0]
        values |= {f"mAR_{name}": recall[:, :, size] for size, name in enumerate(AREA_NAMES) if size}
        return APResult(
            iou_type=self.settings.iou_type,
            stats={name: mean(value) for name, value in values.items()},
            classes=(),
            groups={},
            family=self.family,
            protocol=self.protocol,
            images=len(table.image_ids),
        )

    def _category_keys(self, category_ids: Ints) -> Ints:
        return np.full_like(category_ids, ANY)


def evaluate_class_agnostic(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    workers: int = 0,
    **options: Any,
) -> APResult:
    """Class-agnostic recall on a split; ``options`` as for :class:`~partseg.evaluation.coco.CocoAP`."""
    return run(ClassAgnosticRecall(categories, **options), split, predictions, workers=workers).result()
