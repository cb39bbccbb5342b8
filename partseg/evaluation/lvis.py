"""LVIS' average precision, where not every category was looked for in every image.

The numbers are those of lvis-api's LVISEval. In an image only categories are scored that occur in it or were
checked and found absent; predictions of the others are left out. In categories that are not annotated
exhaustively there, what matches nothing does not count. The 300 best predictions of an image count, over all
categories. Crowds are ordinary objects, and what has no area counts nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from partseg.evaluation.average_precision import Curves, mean
from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import CategoryLike, IouType, SplitLike
from partseg.evaluation.matching import AREA_NAMES
from partseg.evaluation.predictions import PredictionError, Predictions

FREQUENCIES = ("r", "c", "f")
"""Rare, common, frequent: by the number of training images (LVIS)."""


class LvisAP(CocoAP):
    """LVIS' numbers, image by image.

    Args:
        categories: the category table; ``frequency`` is r, c or f.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: the categories to score; all by default, objects and parts.
        groups: group name -> category ids; by default the groups named in the category table.
        max_detections: predictions counted per image, best first.
        keep_order: see :class:`~partseg.evaluation.instance_cells.MatchSettings`; so is ``details``.

    Raises:
        PredictionError: ``category_ids`` names an unknown category, or a category has no frequency.
    """

    family = "lvis"

    def __init__(
        self,
        categories: Sequence[CategoryLike],
        *,
        iou_type: IouType = "segm",
        category_ids: Sequence[int] | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
        max_detections: int = 300,
        keep_order: bool = False,
        details: bool = False,
    ) -> None:
        super().__init__(
            categories,
            iou_type=iou_type,
            category_ids=[item.category_id for item in categories] if category_ids is None else category_ids,
            groups=groups,
            keep_order=keep_order,
            details=details,
            limits={"per_cell": None, "per_image": max_detections, "federated": True},
        )
        self.frequencies = {
            item.category_id: getattr(item, "frequency", None) for item in self.categories.values()
        }
        odd = [i for i in self.settings.category_ids if self.frequencies[i] not in FREQUENCIES]
        if odd:
            raise PredictionError(
                f"category {odd[0]} has the frequency {self.frequencies[odd[0]]!r}, not r, c or f",
                fix="evaluate datasets without frequencies as coco",
            )

    def _stats(self, table: DetectionTable, curves: Curves) -> dict[str, float | None]:
        limit = self.settings.per_image
        p, r = curves.precision, curves.recall
        sizes = [(name[0], place) for place, name in enumerate(AREA_NAMES) if place]
        values: dict[str, Any] = {
            "AP": p[..., 0],
            "AP50": p[0, ..., 0],
            "AP75": p[5, ..., 0],
            **{f"AP{letter}": p[..., size] for letter, size in sizes},
        }
        for frequency in FREQUENCIES:
            ids = [i for i in self.settings.category_ids if self.frequencies[i] == frequency]
            values[f"AP{frequency}"] = p[:, :, curves.rows(ids), 0]
        values[f"AR@{limit}"] = r[..., 0]
        values |= {f"AR{letter}@{limit}": r[..., size] for letter, size in sizes}
        return {name: mean(value) for name, value in values.items()}


def evaluate_lvis(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    iou_type: IouType = "segm",
    workers: int = 0,
    **options: Any,
) -> APResult:
    """LVIS' average precision of predictions on a split.

    Args:
        split: the images with their truth, and which categories were looked for.
        categories: the category table.
        predictions: rows in any order.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        workers: further processes.
        options: see :class:`LvisAP`.

    Raises:
        PredictionError: as :func:`partseg.evaluation.coco.evaluate`.
    """
    state = LvisAP(categories, iou_type=iou_type, **options)
    return run(state, split, predictions, workers=workers).result()
