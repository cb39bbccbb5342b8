"""COCO's average precision of objects or parts, per class and for groups of classes.

The numbers are those of pycocotools' COCOeval. What is added: ground truth straight from the layout, its
``is_ignore`` beside crowds, means over groups of classes (the base and novel parts of the published
cross-category table are plain means of per-class values over the classes that have ground truth), and errors
instead of silence when predictions name an image or a category the data does not have.

PartImageNet is evaluated this way, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from partseg.evaluation.average_precision import Curves, accumulate, mean, recall_at
from partseg.evaluation.average_precision_result import APResult, class_rows, group_means, own_groups
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_cells import MatchSettings
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import CategoryLike, IouType, SplitLike, chosen_categories
from partseg.evaluation.instances import InstanceMatches
from partseg.evaluation.matching import AREA_NAMES
from partseg.evaluation.predictions import Predictions

LIMITS = (1, 10)
"""Predictions per image and category at which recall is read, beside the largest number."""


class CocoAP(InstanceMatches):
    """COCO's numbers, image by image.

    Args:
        categories: the category table of the dataset.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: the categories to score; by default every part category, or every category
            where the dataset has no parts. Predictions of other known categories are left out.
        groups: group name -> category ids; by default the groups named in the category table.
        max_detections: predictions counted per image and category, best first.
        keep_order: see :class:`~partseg.evaluation.instance_cells.MatchSettings`; so is ``details``.
        limits: other settings of the matching in the place of ``max_detections``.

    Raises:
        PredictionError: ``category_ids`` names an unknown category.
    """

    family = "coco"
    protocol = "correct"

    def __init__(
        self,
        categories: Sequence[CategoryLike],
        *,
        iou_type: IouType = "segm",
        category_ids: Sequence[int] | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
        max_detections: int = 100,
        keep_order: bool = False,
        details: bool = False,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            MatchSettings(
                iou_type=iou_type,
                category_ids=chosen_categories(categories, category_ids),
                known_ids=tuple(sorted(item.category_id for item in categories)),
                keep_order=keep_order,
                details=details,
                **({"per_cell": max_detections} if limits is None else limits),
            )
        )
        self.categories = {item.category_id: item for item in categories}
        self.groups = None if groups is None else {name: tuple(ids) for name, ids in groups.items()}

    def result(self, table: DetectionTable | None = None) -> APResult:
        """The numbers over all images so far.

        Args:
            table: what ``table()`` gave, where that is at hand.
        """
        table = self.table() if table is None else table
        curves = self.curves(table)
        classes = class_rows(curves, table, self.categories)
        return APResult(
            iou_type=self.settings.iou_type,
            stats=self._stats(table, curves),
            classes=classes,
            groups=group_means(classes, own_groups(classes) if self.groups is None else self.groups),
            family=self.family,
            protocol=self.protocol,
            images=len(table.image_ids),
        )

    def curves(self, table: DetectionTable | None = None, **options: Any) -> Curves:
        """Precision and recall of every category.

        Args:
            table: what ``table()`` gave, where that is at hand.
            options: of :func:`~partseg.evaluation.average_precision.accumulate`.
        """
        return accumulate(self.table() if table is None else table, self.settings.category_ids, **options)

    def _identity(self) -> Any:
        return self.settings, self.groups

    def _empty(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _stats(self, table: DetectionTable, curves: Curves) -> dict[str, float | None]:
        largest = self.settings.per_cell
        p, r = curves.precision, curves.recall
        sizes = range(1, len(AREA_NAMES))
        values = {
            "AP": p[:, :, :, 0],
            "AP50": p[0, :, :, 0],
            "AP75": p[5, :, :, 0],
            **{f"AP_{AREA_NAMES[size]}": p[:, :, :, size] for size in sizes},
            **{f"AR{limit}": recall_at(table, self.settings.category_ids, limit) for limit in LIMITS},
            f"AR{largest}": r[:, :, 0],
            **{f"AR_{AREA_NAMES[size]}": r[:, :, size] for size in sizes},
        }
        return {name: mean(value) for name, value in values.items()}


def evaluate(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    iou_type: IouType = "segm",
    category_ids: Sequence[int] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    max_detections: int = 100,
    keep_order: bool = False,
    workers: int = 0,
) -> APResult:
    """COCO's average precision of predictions on a split.

    Args:
        split: the images with their ground truth.
        categories: the category table of the dataset.
        predictions: rows in any order.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: see :class:`CocoAP`.
        groups: see there.
        max_detections: see there.
        keep_order: see there.
        workers: further processes.

    Raises:
        PredictionError: a prediction names an unknown image or category, or has no mask, or one of another
            size, although masks are compared; or ``category_ids`` names an unknown category.
    """
    state = CocoAP(
        categories,
        iou_type=iou_type,
        category_ids=category_ids,
        groups=groups,
        max_detections=max_detections,
        keep_order=keep_order,
    )
    return run(state, split, predictions, workers=workers).result()
