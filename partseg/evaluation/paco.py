"""PACO's average precision: objects, parts of objects, and (where a model tells them) attributes.

Objects and parts are evaluated as in LVIS. The headline numbers beside LVIS' are ``obj-AP`` (mean over
object classes) and ``obj-part-AP`` (mean over part names, such as "handle", of the mean over the objects that
have such a part), and both at an overlap of .50.

Protocols are those of PACOEvaluator, whose numbers VLPart publishes with ``lvis``:

- ``lvis``: no attributes; LVIS' own evaluation.
- ``usual``: with attributes. A predicted part of a category that is not annotated exhaustively in an image,
  while its object class is, counts as wrong after all where it does not cover a true object: what it
  shares with one, over the rest of that object, is below the overlap threshold. Attributes are scored by
  score times probability.
- ``lb`` and ``ub``: the same, but attributes are scored as if the model knew nothing about them (score of the
  detection alone), or everything (1 for what is right at .50, 0 otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from partseg.evaluation.average_precision import accumulate, mean
from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.detection_records import DetectionRecords, DetectionTable
from partseg.evaluation.instance_cells import cell_keys, listed_cells
from partseg.evaluation.instance_overlaps import Shapes, cell_pairs, crossed
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import Floats, SplitLike
from partseg.evaluation.instances import Chunk, packed, unpacked
from partseg.evaluation.lvis import LvisAP
from partseg.evaluation.paco_attributes import PacoAttributes, attribute_means, attribute_records
from partseg.evaluation.predictions import PredictionError, Predictions
from partseg.layout.records import Category
from partseg.layout.runs import Ints

PacoProtocol = Literal["lvis", "usual", "lb", "ub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PacoResult(APResult):
    """PACO's numbers, fractions from 0 to 1.

    Attributes:
        parts: AP of every part name over the objects that have it.
        attributes: with attributes, "objects" and "parts", each of "AP", "types" and "attributes" by name;
            and "pairs", by category and attribute such as ``mug:red``.
    """

    parts: dict[str, float | None] = field(default_factory=dict)
    attributes: dict[str, Any] | None = None


class PacoAP(LvisAP):
    """PACO's numbers, image by image.

    Args:
        categories: the category table; parts name their object class and are called ``object:part``.
        protocol: see the module.
        attributes: what is true of the images' attributes; needed for all but ``lvis``.
        options: see :class:`~partseg.evaluation.lvis.LvisAP`.

    Raises:
        PredictionError: attributes are needed and not given.
    """

    family = "paco"

    def __init__(
        self,
        categories: Sequence[Category],
        *,
        protocol: PacoProtocol = "lvis",
        attributes: PacoAttributes | None = None,
        **options: Any,
    ) -> None:
        super().__init__(categories, **options)
        if protocol != "lvis" and attributes is None:
            raise PredictionError(
                f"the protocol {protocol} evaluates attributes, which are not given",
                fix="read them from the dataset, or evaluate with the protocol lvis",
            )
        self.protocol = protocol
        self.attributes = attributes if protocol != "lvis" else None
        self.owners = {item.category_id: item.parent_id for item in categories if item.parent_id is not None}
        self.attribute_records = DetectionRecords(len(self.settings.thresholds), 1)

    def merge(self, other: PacoAP) -> PacoAP:
        """Both together; neither changes."""
        merged = super().merge(other)
        merged.attribute_records = self.attribute_records.merge(other.attribute_records)
        return merged

    def result(self, table: DetectionTable | None = None) -> PacoResult:
        """The numbers over all images so far."""
        found = super().result(table)
        objects = [row for row in found.classes if row.category_id not in self.owners]
        names: dict[str, list[Any]] = {}
        for row in found.classes:
            if row.category_id in self.owners:
                names.setdefault(row.name.rpartition(":")[2], []).append(row)
        parts = {name: _mean([row.ap for row in rows]) for name, rows in names.items()}
        stats = found.stats | {
            "obj-AP": _mean([row.ap for row in objects]),
            "obj-AP50": _mean([row.ap50 for row in objects]),
            "obj-part-AP": _mean(list(parts.values())),
            "obj-part-AP50": _mean([_mean([row.ap50 for row in rows]) for rows in names.values()]),
        }
        attributes = None
        if self.attributes is not None:
            curves = accumulate(self.attribute_records.sorted(), self.attributes.pair_ids)
            values = [mean(curves.precision[:, :, row, 0]) for row in range(len(curves.category_ids))]
            attributes = attribute_means(self.attributes, self.categories, self.owners, values)
            stats |= {
                "obj-attr-AP": attributes["objects"]["AP"],
                "obj-part-attr-AP": attributes["parts"]["AP"],
            }
        return PacoResult(
            iou_type=found.iou_type,
            stats=stats,
            classes=found.classes,
            groups=found.groups,
            family=self.family,
            protocol=self.protocol,
            images=found.images,
            parts=parts,
            attributes=attributes,
        )

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predictions of some images.

        Raises:
            PredictionError: as usual; and if attributes are evaluated, but not predicted.
        """
        if self.attributes is not None and len(predictions) and predictions.attribute_probs is None:
            raise PredictionError(
                f"the protocol {self.protocol} evaluates attributes, which are not predicted",
                fix="evaluate with the protocol lvis",
            )
        super().add(images, predictions)

    def _identity(self) -> Any:
        return super()._identity(), self.protocol

    def _empty(self) -> PacoAP:
        other = super()._empty()
        other.attribute_records = DetectionRecords(len(self.settings.thresholds), 1)
        return other

    def _adjust(self, chunk: Chunk, images: Sequence[Any]) -> None:
        if self.attributes is None:
            return
        self._judge_parts(chunk, images)
        found = attribute_records(
            self.attributes,
            chunk,
            self.protocol,
            keep_order=self.settings.keep_order,
            thresholds=np.asarray(self.settings.thresholds),
        )
        self.attribute_records.add(chunk.everything.image_ids, *found)

    def _judge_parts(self, chunk: Chunk, images: Sequence[Any]) -> None:
        """Parts that are not annotated exhaustively although their object class is."""
        categories = chunk.found.category_ids.astype(np.int64)
        owner = np.array([self.owners.get(int(c)) or -1 for c in categories], np.int64)
        keys = cell_keys(chunk.cells.images, owner)
        known = ~np.isin(keys, listed_cells(images, "not_exhaustive_category_ids"))
        truth_keys = cell_keys(chunk.truth.images, chunk.truth.category_ids)
        judged = np.flatnonzero(chunk.cells.not_exhaustive & (owner >= 0) & known & np.isin(keys, truth_keys))
        if not len(judged):
            return
        order = judged[np.argsort(keys[judged], kind="stable")]
        covered = _covered(chunk.shapes.at(order), chunk.truth_shapes, keys[order], truth_keys)
        limits = np.asarray(self.settings.thresholds)
        alone = chunk.matches.dense(len(chunk.found))[order] < 0
        inside = self.inside_ranges(chunk.shapes.areas[order])
        verdict = np.broadcast_to((covered[:, None] >= limits)[:, None, :], alone.shape)
        before = unpacked(chunk.ignored[order], *alone.shape[1:])
        chunk.ignored[order] = packed(np.where(alone & inside[:, :, None], verdict, before))


def _covered(parts: Shapes, objects: Shapes, keys: Ints, truth_keys: Ints) -> Floats:
    """Largest share of a true object with each part, over the rest of the object."""
    everything = np.ones(len(objects.areas), np.bool_)
    if parts.rles is None:
        rows, others = crossed(keys, truth_keys)
        shared = _box_overlap(parts.boxes_xywh[rows], objects.boxes_xywh[others])
    else:
        pairs = cell_pairs(parts, objects, keys, truth_keys, everything, 0.0)
        rows, others = pairs.found, pairs.truth
        shared = np.rint(pairs.iou * parts.areas[rows])
    ratio = shared / (objects.areas[others] - shared + 1e-7)
    # the original looks at the largest ratio that is not 0, which may be negative for boxes
    result = np.full(len(keys), -np.inf)
    np.maximum.at(result, rows[ratio != 0], ratio[ratio != 0])
    return result


def _box_overlap(boxes: Floats, others: Floats) -> Floats:
    """Pixels that P pairs of boxes share, where x + width is counted as well."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    sides = np.maximum(high - low + 1, 0.0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


def evaluate_paco(
    split: SplitLike,
    categories: Sequence[Category],
    predictions: Predictions,
    *,
    workers: int = 0,
    **options: Any,
) -> PacoResult:
    """PACO's numbers of predictions on a split; ``options`` as for :class:`PacoAP`."""
    return run(PacoAP(categories, **options), split, predictions, workers=workers).result()
