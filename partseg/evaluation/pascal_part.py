"""Average precision of Pascal-Part's parts, with the base and novel parts of the cross-category table.

Protocols:

- ``correct``: COCO's average precision on the layout's masks, their areas and boxes; means over the base and
  the novel classes that have truth.
- ``vlpart`` (PASCALPARTEvaluator on the JSON of ``pascal_part_mat2json.py``): boxes are one pixel short in
  width and height, areas are those of these boxes, images without a part are left out together with their
  predictions, and a match with the very first annotation of the file is a miss, since its id is 0. The mean
  over the seen (base) or unseen (novel) classes does not exist as soon as one of them has no truth, where
  the original prints nan; here it is None, and the result says so.

VLPart publishes AP and AP50 of the masks over all, base and novel classes, and AP50 alone per class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import CategoryLike, InstanceTruth, IouType, SplitLike, read_truth
from partseg.evaluation.predictions import Predictions

PascalPartProtocol = Literal["correct", "vlpart"]

SEEN = {"base": "seen", "novel": "unseen"}
"""VLPart's names of the groups."""


class PascalPartAP(CocoAP):
    """COCO's numbers and AP-seen, AP-unseen, AP50-seen, AP50-unseen, image by image.

    Args:
        categories: the category table; parts are of the group base or novel.
        protocol: see the module.
        first_annotation: with ``vlpart``, the annotation that has the id 0 in its file, see
            :func:`first_annotation`; None where there is none.
        options: see :class:`~partseg.evaluation.coco.CocoAP`.
    """

    family = "pascal_part"

    def __init__(
        self,
        categories: Sequence[CategoryLike],
        *,
        protocol: PascalPartProtocol = "correct",
        first_annotation: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(categories, **options)
        self.protocol = protocol
        self.first = first_annotation

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predictions of some images."""
        if self.protocol == "vlpart":
            ids = np.asarray(self.settings.category_ids)
            kept = [image for image in images if np.isin(image.category_ids, ids).any()]
            dropped = {image.image_id for image in images} - {image.image_id for image in kept}
            if dropped:
                predictions = predictions[~np.isin(predictions.image_ids, list(dropped))]
            images = kept
        super().add(images, predictions)

    def result(self, table: DetectionTable | None = None) -> APResult:
        """The numbers over all images so far."""
        found = super().result(table)
        stats, notes = dict(found.stats), []
        for group, short in SEEN.items():
            members = [row for row in found.classes if row.group == group]
            means: Mapping[str, Any] = found.groups.get(group, {"AP": None, "AP50": None})
            missing = sum(row.ap is None for row in members)
            if missing and self.protocol == "vlpart":
                means = {"AP": None, "AP50": None}
                notes.append(
                    f"AP-{short} and AP50-{short} do not exist: {missing} of {len(members)} {group} classes "
                    "have no truth (the original prints nan)"
                )
            stats |= {f"AP-{short}": means["AP"], f"AP50-{short}": means["AP50"]}
        return replace(found, stats=stats, notes=tuple(notes))

    def _identity(self) -> Any:
        return super()._identity(), self.protocol, self.first

    def _truth(self, images: Sequence[Any]) -> InstanceTruth:
        truth = read_truth(images)
        if self.protocol == "correct":
            return truth
        boxes = truth.boxes_xywh - np.array([0, 0, 1, 1])
        return replace(
            truth,
            boxes_xywh=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            is_void=truth.ann_ids == (-1 if self.first is None else self.first),
        )


def first_annotation(split: SplitLike, category_ids: Collection[int]) -> int | None:
    """The id of the first annotation of these categories: the one VLPart's file numbers 0."""
    ids = np.asarray(sorted(category_ids))
    for index in range(len(split)):
        record = split[index]
        found = np.flatnonzero(np.isin(record.category_ids, ids))
        if len(found):
            return int(record.ann_ids[found[0]])
    return None


def evaluate_pascal_part(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    protocol: PascalPartProtocol = "correct",
    iou_type: IouType = "segm",
    category_ids: Sequence[int] | None = None,
    workers: int = 0,
    **options: Any,
) -> APResult:
    """Pascal-Part's average precision of predicted parts on a split.

    Args:
        split: the images with their truth.
        categories: the category table.
        predictions: rows in any order.
        protocol: see the module.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: the parts to score; all by default.
        workers: further processes.
        options: see :class:`~partseg.evaluation.coco.CocoAP`.

    Raises:
        PredictionError: as :func:`partseg.evaluation.coco.evaluate`.
    """
    state = PascalPartAP(
        categories, protocol=protocol, iou_type=iou_type, category_ids=category_ids, **options
    )
    if protocol == "vlpart":
        state.first = first_annotation(split, state.settings.category_ids)
    return run(state, split, predictions, workers=workers).result()
