"""PASCAL VOC's average precision of boxes.

Boxes count their last row and column: x + width is xmax, and both overlap and size count pixels. Every
prediction looks at the one true box that it overlaps most. Above the threshold it is right if it is the first
to find that box, wrong if not, and nothing if the box is difficult. AP is the mean of the precision at eleven
recalls (VOC 2007), or the area under the curve (from VOC 2010 on). COCO's mean over ten thresholds is made
of it as in detectron2.

Protocols:

- ``correct``: what is written above; classes without truth enter no mean.
- ``detectron2`` (PascalVOCDetectionEvaluator, VLPart's numbers): scores are first rounded to three digits
  and corners to one, as they pass through a text file, and a class without truth has an 11-point AP of 0 (its
  area is nan there, and enters no mean here). Equal scores, of which rounding makes many, are settled by
  image and box here; the original leaves them to an unstable sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from partseg.evaluation.average_precision_result import APResult, ClassAP, group_means, own_groups
from partseg.evaluation.detection_records import DETECTION, TRUTH, DetectionRecords, DetectionTable
from partseg.evaluation.instance_cells import MatchSettings, cell_keys, find_cells
from partseg.evaluation.instance_overlaps import crossed
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import CategoryLike, Floats, SplitLike, chosen_categories, read_truth
from partseg.evaluation.predictions import Predictions, make

# Each divided on its own, as detectron2 does: COCO's linspace has 0.8999999999999999 where this has 0.9, and
# an overlap may be just that.
THRESHOLDS = np.arange(50, 100, 5) / 100

Metric = Literal["11point", "area"]
VocProtocol = Literal["correct", "detectron2"]


class VocAP:
    """VOC's numbers, image by image.

    Args:
        categories: the category table.
        category_ids: the classes to score; every object by default.
        metric: of VOC 2007 ("11point") or later ("area").
        protocol: see the module.
    """

    def __init__(
        self,
        categories: Sequence[CategoryLike],
        *,
        category_ids: Sequence[int] | None = None,
        metric: Metric = "11point",
        protocol: VocProtocol = "correct",
    ) -> None:
        if category_ids is None:
            category_ids = [item.category_id for item in categories if item.kind != "part"]
        self.categories = {item.category_id: item for item in categories}
        self.metric, self.protocol = metric, protocol
        self.settings = MatchSettings(
            iou_type="bbox",
            category_ids=chosen_categories(categories, category_ids),
            known_ids=tuple(sorted(self.categories)),
            per_cell=None,
            area_ranges=((0.0, np.inf),),
        )
        self.records = DetectionRecords(len(THRESHOLDS), 1)

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predictions of some images; ``is_ignore`` marks what is difficult.

        Raises:
            PredictionError: predictions of another image or category, or an image that was added before.
        """
        everything = read_truth(images)
        truth = everything.where(np.isin(everything.category_ids, np.asarray(self.settings.category_ids)))
        if self.protocol == "detectron2":
            predictions = _through_text(predictions)
        cells = find_cells(self.settings, truth, predictions, images, lambda ids: ids)
        found = predictions[cells.rows]
        rows, others = crossed(cells.keys, cell_keys(truth.images, truth.category_ids))
        iou = _overlaps(found.boxes_xywh[rows], truth.boxes_xywh[others])
        best = np.lexsort((others, -iou, rows))  # of equal overlaps the first counts
        best = best[np.flatnonzero(np.diff(rows[best], prepend=-1))]
        partner = np.full(len(found), -1)
        partner[rows[best]] = others[best]
        overlap = np.zeros(len(found))
        overlap[rows[best]] = iou[best]
        detections = np.zeros(len(found), DETECTION)
        truths = np.zeros(len(truth), TRUTH)
        difficult = np.append(truth.is_ignore | truth.is_crowd, False)
        for level, threshold in enumerate(THRESHOLDS):
            bit = np.uint64(1 << level)
            above = overlap > threshold
            hit = np.flatnonzero(above & ~difficult[partner])
            _, first = np.unique(partner[hit], return_index=True)  # in a cell, the best score comes first
            detections["matched"][hit[first]] |= bit
            detections["ignored"][above & difficult[partner]] |= bit
            truths["matched"][partner[hit[first]]] |= bit
        ids = np.append(truth.ann_ids, -1)
        detections["image_id"], detections["score"] = found.image_ids, found.scores
        detections["category_id"], detections["rank"] = found.category_ids, cells.ranks
        detections["iou"] = np.where(difficult[partner], 0, overlap)
        detections["truth_id"] = np.where(difficult[partner], -1, ids[partner])
        detections["match_id"] = np.where(detections["matched"] & np.uint64(1), ids[partner], -1)
        detections["other_iou"], detections["other_truth_id"] = np.nan, -1
        truths["image_id"], truths["ann_id"] = truth.image_ids[truth.images], truth.ann_ids
        truths["category_id"], truths["area"] = truth.category_ids, truth.areas
        truths["ignored"] = difficult[:-1]
        self.records.add(everything.image_ids, detections, truths)

    def merge(self, other: VocAP) -> VocAP:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have other settings.
        """
        if (self.settings, self.metric, self.protocol) != (other.settings, other.metric, other.protocol):
            raise ValueError("states of different settings cannot be merged")
        merged = VocAP(
            tuple(self.categories.values()),
            category_ids=self.settings.category_ids,
            metric=self.metric,
            protocol=self.protocol,
        )
        merged.records = self.records.merge(other.records)
        return merged

    def table(self) -> DetectionTable:
        """All records, in an order that depends on nothing but themselves."""
        return self.records.sorted()

    def result(self, table: DetectionTable | None = None) -> APResult:
        """AP (mean over the thresholds .50 to .95), AP50 and AP75 over all images so far."""
        table = self.table() if table is None else table
        ids = np.asarray(self.settings.category_ids)
        found = np.searchsorted(table.detections["category_id"], [ids, ids + 1])
        true = np.searchsorted(table.truths["category_id"], [ids, ids + 1])
        values = np.full((len(THRESHOLDS), len(ids)), np.nan)
        for k in range(len(ids)):
            rows, own = slice(*found[:, k]), slice(*true[:, k])
            positives = int((table.truths["ignored"][own] == 0).sum())
            if positives:
                for level in range(len(THRESHOLDS)):
                    right, wrong = table.hits(level)[rows], table.mistakes(level)[rows]
                    values[level, k] = self._average(right, wrong, positives)
            elif self.protocol == "detectron2" and self.metric == "11point":
                values[:, k] = 0.0
        classes = tuple(
            ClassAP(
                category_id=category_id,
                name=self.categories[category_id].name,
                group=self.categories[category_id].group,
                ap=_mean(values[:, k]),
                ap50=_mean(values[:1, k]),
                ground_truth=int(true[1, k] - true[0, k]),
                predictions=int(found[1, k] - found[0, k]),
            )
            for k, category_id in enumerate(self.settings.category_ids)
        )
        levels = [_mean(row) for row in values]
        measured = np.array([value for value in levels if value is not None])
        return APResult(
            iou_type="bbox",
            stats={"AP": _mean(measured), "AP50": levels[0], "AP75": levels[5]},
            classes=classes,
            groups=group_means(classes, own_groups(classes)),
            family="voc",
            protocol=self.protocol,
            images=len(table.image_ids),
            notes=(f"AP is VOC's {'11-point mean' if self.metric == '11point' else 'area'}",),
        )

    def _average(self, right: Any, wrong: Any, positives: int) -> float:
        true_positives, false_positives = np.cumsum(right), np.cumsum(wrong)
        recall = true_positives / float(positives)
        # nothing is known before the first prediction that counts
        precision = true_positives / np.maximum(true_positives + false_positives, np.finfo(np.float64).eps)
        return voc_average(recall, precision, self.metric)


def voc_average(recall: Floats, precision: Floats, metric: Metric) -> float:
    """AP of one class.

    Args:
        recall: [N], not falling.
        precision: [N], after as many predictions.
        metric: see :class:`VocAP`.
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "11point":
        places = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1), side="left")
        # summed one after another, as the devkit's translations do
        total = 0.0
        for place in places.tolist():
            total += (float(best[place]) if place < len(best) else 0.0) / 11.0
        return total
    steps = np.concatenate(([0.0], recall, [1.0]))
    heights = np.maximum.accumulate(np.concatenate(([0.0], precision, [0.0]))[::-1])[::-1]
    change = np.flatnonzero(steps[1:] != steps[:-1])
    return float(np.sum((steps[change + 1] - steps[change]) * heights[change + 1]))


def evaluate_voc(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    workers: int = 0,
    **options: Any,
) -> APResult:
    """VOC's average precision of predicted boxes on a split; ``options`` as for :class:`VocAP`."""
    return run(VocAP(categories, **options), split, predictions, workers=workers).result()


def _mean(values: Floats) -> float | None:
    measured = values[~np.isnan(values)]
    return float(np.mean(measured)) if measured.size else None


def _overlaps(boxes: Floats, others: Floats) -> Floats:
    """Overlap of P pairs of boxes whose last pixels count."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    sides = np.maximum(high - low, 0.0)
    common = sides[:, 0] * sides[:, 1]
    union = boxes[:, 2] * boxes[:, 3] + others[:, 2] * others[:, 3] - common
    overlap: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return overlap


def _through_text(predictions: Predictions) -> Predictions:
    """What detectron2's text file leaves of predictions: corners count from 1 there."""
    corners = predictions.boxes_xywh.copy()
    corners[:, 2:] += corners[:, :2]
    corners[:, :2] += 1
    rounded = np.array([float(f"{value:.1f}") for value in corners.ravel().tolist()]).reshape(-1, 4)
    rounded[:, :2] -= 1
    rounded[:, 2:] -= rounded[:, :2]
    scores = [float(f"{score:.3f}") for score in predictions.scores.tolist()]
    return make(predictions.image_ids, predictions.category_ids, scores, rounded)
