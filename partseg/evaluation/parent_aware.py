"""Part average precision that asks for the right object: parent-aware AP.

COCO's AP of parts looks at a part's own mask only, so a head is right even if the model puts it on the wrong
dog. Here a predicted part can only match a true part if its *predicted object* is the *true part's object*:

1. Predicted and true objects of the same class are matched as for COCO's AP, at an overlap of .50 (masks or
   boxes, as for the parts), up to 100 per image and class.
2. The predicted object of a predicted part is, among the predicted objects of the part's object class in its
   image, the one that contains most of the part (of equals, the one of the best score); it has to contain at
   least half of it. This is how :mod:`partseg.predict` links parts.
3. A predicted part may match a true part only if its predicted object was matched with the object that the
   true part is linked to. A part without a predicted object, or whose object is no match, matches nothing
   that has an object. True parts without an object may be matched by any prediction.

All else is COCO's AP of parts; the gap to it is what wrong or missing objects cost. It is no number of the
original zoos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from partseg.errors import PartsegError
from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.instance_cells import Cells, MatchSettings, cell_keys
from partseg.evaluation.instance_overlaps import cell_pairs, shapes
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import Flags, InstanceTruth, SplitLike
from partseg.evaluation.instances import InstanceMatches
from partseg.evaluation.matching import Pairs
from partseg.evaluation.predictions import Predictions, make
from partseg.layout.records import Category
from partseg.layout.runs import Ints

MOST = 0.5
"""How much of a part its object contains at least."""


class ParentAwareAP(CocoAP):
    """COCO's numbers of parts on the right objects, image by image.

    Args:
        categories: the category table; parts name their object class.
        options: see :class:`~partseg.evaluation.coco.CocoAP`; ``category_ids`` are parts.

    Raises:
        PartsegError: there are no parts.
    """

    family = "parent_aware"

    def __init__(self, categories: Sequence[Category], **options: Any) -> None:
        super().__init__(categories, **options)
        chosen = set(self.settings.category_ids)
        self.owners: Mapping[int, int] = {
            item.category_id: item.parent_id
            for item in categories
            if item.category_id in chosen and item.kind == "part" and item.parent_id is not None
        }
        if not self.owners:
            raise PartsegError("no part that is scored names its object class", fix="evaluate parts")
        self._objects = InstanceMatches(
            MatchSettings(
                iou_type=self.settings.iou_type,
                category_ids=tuple(sorted(set(self.owners.values()))),
                keep_order=self.settings.keep_order,
                thresholds=(0.5,),
                area_ranges=((0.0, 1e10),),
            )
        )
        self._pending: tuple[Sequence[Any], Predictions] = ((), make([], [], [], []))

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predicted parts of some images, given objects and parts that were predicted there."""
        self._pending = images, predictions
        try:
            super().add(images, predictions)
        finally:
            self._pending = (), make([], [], [], [])

    def _allowed(
        self, found: Predictions, cells: Cells, everything: InstanceTruth, truth: InstanceTruth, pairs: Pairs
    ) -> Flags:
        images, predictions = self._pending
        objects = self._objects.match_chunk(everything, predictions, images)
        # the true object that each predicted object is, as annotation id
        partner = objects.matches.dense(len(objects.found))[:, 0, 0]
        ids = np.append(objects.truth.ann_ids, -1)[partner]
        parent = self._predicted_objects(found, cells, objects.found, objects.cells, everything)
        owner = np.append(ids, -1)[parent]
        rows = np.flatnonzero(np.isin(everything.category_ids, np.asarray(self.settings.category_ids)))
        true_parent = everything.parents[rows]
        wanted = np.where(true_parent >= 0, everything.ann_ids[true_parent], -1)
        return np.asarray((wanted[pairs.truth] < 0) | (wanted[pairs.truth] == owner[pairs.found]))

    def _predicted_objects(
        self,
        parts: Predictions,
        part_cells: Cells,
        objects: Predictions,
        object_cells: Cells,
        everything: InstanceTruth,
    ) -> Ints:
        """Row of the predicted object of each predicted part, or -1."""
        own = shapes(
            self.settings.iou_type,
            parts.boxes_xywh,
            parts.rles,
            everything.sizes[part_cells.images],
            parts.image_ids,
        )
        other = shapes(
            self.settings.iou_type,
            objects.boxes_xywh,
            objects.rles,
            everything.sizes[object_cells.images],
            objects.image_ids,
        )
        classes = np.array([self.owners.get(int(c), -1) for c in parts.category_ids], np.int64)
        keys = cell_keys(part_cells.images, classes)
        order = np.argsort(keys, kind="stable")
        # how much of a part lies in an object: what COCO asks of crowds
        inside = cell_pairs(
            own.at(order),
            other,
            keys[order],
            object_cells.keys,
            np.ones(len(objects), np.bool_),
            MOST,
        )
        rows = order[inside.found]
        best = np.lexsort((inside.truth, -inside.iou, rows))  # objects come by falling score
        best = best[np.flatnonzero(np.diff(rows[best], prepend=-1))]
        best = best[inside.iou[best] >= MOST]
        result = np.full(len(parts), -1, np.int64)
        result[rows[best]] = inside.truth[best]
        return result


def evaluate_parent_aware(
    split: SplitLike,
    categories: Sequence[Category],
    predictions: Predictions,
    *,
    workers: int = 0,
    **options: Any,
) -> APResult:
    """Parent-aware AP of predicted parts on a split.

    Args:
        split: the images with their truth.
        categories: the category table.
        predictions: objects and parts, rows in any order.
        workers: further processes.
        options: see :class:`~partseg.evaluation.coco.CocoAP`.

    Raises:
        PredictionError: as :func:`partseg.evaluation.coco.evaluate`.
    """
    return run(ParentAwareAP(categories, **options), split, predictions, workers=workers).result()
