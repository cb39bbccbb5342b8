"""What matching leaves of every prediction and every true one: a few numbers each, and no mask.

Averages, bootstrap intervals, comparisons of two models and error splits need nothing else. The numbers stand
in two numpy tables, whose order is that of :meth:`DetectionRecords.sorted`, whatever way they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

DETECTION = np.dtype(
    [
        ("image_id", np.int64),
        ("category_id", np.int32),
        ("rank", np.int32),  # in its cell, 0 for the best score
        ("score", np.float64),
        ("matched", np.uint64),  # bit (range * thresholds + threshold): found a true one
        ("ignored", np.uint64),  # the same bits: neither right nor wrong
        (
            "iou",
            np.float64,
        ),  # largest with a true one of its category that is not a crowd or ignored; 0 for none
        ("truth_id", np.int64),  # annotation id of that one, or -1
        ("other_iou", np.float64),  # the same for the other categories; nan where not computed
        ("other_truth_id", np.int64),  # or -1
        ("match_id", np.int64),  # matched at the lowest threshold in the first range, or -1
    ]
)
"""One prediction."""

TRUTH = np.dtype(
    [
        ("image_id", np.int64),
        ("category_id", np.int32),
        ("ann_id", np.int64),
        ("area", np.float64),
        ("matched", np.uint64),  # the same bits: was found
        ("ignored", np.uint8),  # bit (range): does not count
    ]
)
"""One true object or part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionTable:
    """All records in one order.

    Attributes:
        image_ids: int64 [I], evaluated images, ascending.
        detections: :data:`DETECTION` [N], by category, falling score, image and rank.
        truths: :data:`TRUTH` [G], by category, image and annotation id.
        thresholds: number of overlap thresholds T.
        ranges: number of size ranges A.
    """

    image_ids: Ints
    detections: NDArray[Any]
    truths: NDArray[Any]
    thresholds: int
    ranges: int

    def bit(self, threshold: int = 0, size: int = 0) -> np.uint64:
        """The bit of ``matched`` and ``ignored`` for one threshold and size range."""
        return np.uint64(1 << (size * self.thresholds + threshold))

    def hits(self, threshold: int = 0, size: int = 0) -> NDArray[np.bool_]:
        """Which predictions are right, bool [N]."""
        bit, rows = self.bit(threshold, size), self.detections
        return np.asarray((rows["matched"] & ~rows["ignored"] & bit) != 0)

    def mistakes(self, threshold: int = 0, size: int = 0) -> NDArray[np.bool_]:
        """Which predictions are wrong, bool [N]; the rest does not count."""
        bit, rows = self.bit(threshold, size), self.detections
        return np.asarray(((rows["matched"] | rows["ignored"]) & bit) == 0)

    def missed(self, threshold: int = 0, size: int = 0) -> NDArray[np.bool_]:
        """Which true ones count and were not found, bool [G]."""
        counts = self.truths["ignored"] >> np.uint8(size) & np.uint8(1) == 0
        return np.asarray(counts & ((self.truths["matched"] & self.bit(threshold, size)) == 0))


class DetectionRecords:
    """Records of any number of images, collected in any order.

    Args:
        thresholds: number of overlap thresholds.
        ranges: number of size ranges.
    """

    def __init__(self, thresholds: int, ranges: int) -> None:
        self.thresholds, self.ranges = thresholds, ranges
        self._images: list[Ints] = []
        self._detections: list[NDArray[Any]] = []
        self._truths: list[NDArray[Any]] = []

    def __len__(self) -> int:
        return sum(len(item) for item in self._detections)

    @property
    def image_ids(self) -> Ints:
        """Of all images, ascending."""
        return np.sort(np.concatenate([np.zeros(0, np.int64), *self._images]))

    def add(self, image_ids: Ints, detections: NDArray[Any], truths: NDArray[Any]) -> None:
        """Records of some images.

        Args:
            image_ids: all of them.
            detections: the predictions of an image lie together, those of a category by rank.
            truths: in any order.

        Raises:
            PredictionError: an image was added before.
        """
        self._once([*self._images, image_ids])
        self._images.append(image_ids)
        self._detections.append(detections)
        self._truths.append(truths)

    def merge(self, other: DetectionRecords) -> DetectionRecords:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have other thresholds or ranges.
        """
        if (self.thresholds, self.ranges) != (other.thresholds, other.ranges):
            raise ValueError("records of different thresholds cannot be merged")
        merged = DetectionRecords(self.thresholds, self.ranges)
        merged._images = self._images + other._images
        merged._once(merged._images)
        merged._detections = self._detections + other._detections
        merged._truths = self._truths + other._truths
        return merged

    def sorted(self) -> DetectionTable:
        """All of them in the one order."""
        detections = np.concatenate([np.zeros(0, DETECTION), *self._detections])
        ids = detections["image_id"].copy()
        if (np.diff(ids) < 0).any():
            detections = detections[np.argsort(ids, kind="stable")]
        # within an image, the predictions of a category already come by rank
        order = np.lexsort((-detections["score"], detections["category_id"].copy()))
        truths = np.concatenate([np.zeros(0, TRUTH), *self._truths])
        true_keys = (truths["ann_id"], truths["image_id"], truths["category_id"])
        return DetectionTable(
            image_ids=self.image_ids,
            detections=detections[order],
            truths=truths[np.lexsort(true_keys)],
            thresholds=self.thresholds,
            ranges=self.ranges,
        )

    @staticmethod
    def _once(images: Sequence[Ints]) -> None:
        ids = np.sort(np.concatenate([np.zeros(0, np.int64), *images]))
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            raise PredictionError(
                f"image {ids[twice[0]]} is evaluated twice",
                fix="share the images out so that each is in one part only",
            )
