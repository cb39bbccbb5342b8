"""Matched, spurious and missed segments of every image and class: what PQ and PartPQ are made of.

Kept per image, so that images may come in any order, from any process, and a result can be had for a sample
of the images. Counts are whole numbers and IoU sums are rounded once (``math.fsum``), so neither the order of
the images nor how they were shared out changes a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

ImageId = int | str
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMatches:
    """One class over all images.

    Attributes:
        tp: segments that were found.
        fp: predicted segments that match none.
        fn: segments that were missed.
        iou: sum of the IoU of the found ones (of their parts, for PartPQ).
    """

    tp: int
    fp: int
    fn: int
    iou: float

    @property
    def occurs(self) -> bool:
        """Whether there is a segment, true or predicted, that counts."""
        return self.tp + self.fp + self.fn > 0

    @property
    def quality(self) -> float | None:
        """Segmentation quality times recognition quality; None where the class does not occur."""
        return self.iou / (self.tp + 0.5 * self.fp + 0.5 * self.fn) if self.occurs else None

    @property
    def segmentation(self) -> float | None:
        """Mean IoU of the found segments, 0 where none is found; None where the class does not occur."""
        if not self.occurs:
            return None
        return self.iou / self.tp if self.tp else 0.0

    @property
    def recognition(self) -> float | None:
        """F1 score of finding segments; None where the class does not occur."""
        return self.tp / (self.tp + 0.5 * self.fp + 0.5 * self.fn) if self.occurs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """Means over the classes of a group that occur, 0 to 1; None where none does.

    Attributes:
        n: how many of them occur.
    """

    quality: float | None
    segmentation: float | None
    recognition: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchTable:
    """Every image's counts, for samples of the images.

    Attributes:
        image_ids: in ascending order, [I].
        category_ids: [C].
        tp: int64 [I, C]; so are ``fp`` and ``fn``.
        iou: float64 [I, C].
    """

    image_ids: tuple[ImageId, ...]
    category_ids: tuple[int, ...]
    tp: Ints
    fp: Ints
    fn: Ints
    iou: Floats

    def averages(self, weights: ArrayLike, members: ArrayLike) -> dict[str, Floats]:
        """Means over the classes of a group for B samples of the images.

        Args:
            weights: int [B, I], how often each image is in each sample.
            members: bool [C], the classes of the group.

        Returns:
            "quality", "segmentation" and "recognition", float64 [B]; nan where no class of the group occurs.
        """
        times, chosen = np.asarray(weights, np.float64), np.asarray(members, np.bool_)
        tp, fp, fn, iou = (times @ item[:, chosen] for item in (self.tp, self.fp, self.fn, self.iou))
        size = tp + 0.5 * fp + 0.5 * fn
        occurs = size > 0
        n = occurs.sum(1)
        safe = np.where(occurs, size, 1)
        parts = {
            "quality": iou / safe,
            "segmentation": np.where(tp > 0, iou / np.maximum(tp, 1), 0),
            "recognition": tp / safe,
        }
        sums = {name: np.where(occurs, value, 0).sum(1) for name, value in parts.items()}
        return {name: np.where(n > 0, value / np.maximum(n, 1), np.nan) for name, value in sums.items()}


class MatchCounts:
    """The counts of any number of images.

    Args:
        category_ids: the classes that are counted.
    """

    def __init__(self, category_ids: Sequence[int]) -> None:
        self.category_ids = tuple(category_ids)
        self._images: dict[ImageId, tuple[NDArray[np.int32], Floats]] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._images

    def add(self, image_id: ImageId, categories: Ints, counts: Mapping[str, Ints], iou: Floats) -> None:
        """The segments of one image.

        Args:
            image_id: not added before.
            categories: [N], of every segment that counts as one of these.
            counts: "tp", "fp", "fn": int [N] each.
            iou: [N], 0 where the segment is no match.

        Raises:
            PredictionError: the image was added before.
        """
        if image_id in self._images:
            raise _twice(image_id)
        known = np.isin(categories, self.category_ids)
        present, place = np.unique(categories[known], return_inverse=True)
        sums = [np.bincount(place, counts[name][known], len(present)) for name in ("tp", "fp", "fn")]
        rows = np.stack([present, *sums], 1).astype(np.int32)
        values = [math.fsum(iou[known][place == index].tolist()) for index in range(len(present))]
        self._images[image_id] = (rows, np.array(values, np.float64))

    def merge(self, other: MatchCounts) -> Self:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they count other classes.
        """
        if set(self.category_ids) != set(other.category_ids):
            raise ValueError("states of different classes cannot be merged")
        both = self._images.keys() & other._images.keys()
        if both:
            raise _twice(next(iter(both)))
        merged = type(self)(self.category_ids)
        merged._images = self._images | other._images
        return merged

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        """Numbers before names, each in ascending order."""
        return tuple(sorted(self._images, key=lambda item: (isinstance(item, str), item)))

    def totals(self) -> dict[int, ClassMatches]:
        """Every class over all images."""
        place = {category: index for index, category in enumerate(self.category_ids)}
        sums = np.zeros((len(place), 3), np.int64)
        ious: list[list[float]] = [[] for _ in place]
        for rows, values in self._images.values():
            for (category, *counts), value in zip(rows.tolist(), values.tolist(), strict=True):
                sums[place[category]] += counts
                ious[place[category]].append(value)
        return {
            category: ClassMatches(tp=tp, fp=fp, fn=fn, iou=math.fsum(ious[place[category]]))
            for category, (tp, fp, fn) in zip(self.category_ids, sums.tolist(), strict=True)
        }

    def table(self) -> MatchTable:
        """The counts of every image and class, dense."""
        ids = self.image_ids
        place = {category: index for index, category in enumerate(self.category_ids)}
        counts = np.zeros((3, len(ids), len(place)), np.int64)
        iou = np.zeros((len(ids), len(place)))
        for row, image_id in enumerate(ids):
            rows, values = self._images[image_id]
            columns = [place[category] for category in rows[:, 0].tolist()]
            counts[:, row, columns] = rows[:, 1:].T
            iou[row, columns] = values
        return MatchTable(
            image_ids=ids,
            category_ids=self.category_ids,
            tp=counts[0],
            fp=counts[1],
            fn=counts[2],
            iou=iou,
        )

    def per_image(self) -> Iterator[tuple[ImageId, dict[int, ClassMatches]]]:
        """Every image with the classes that occur in it, in ascending order of the id."""
        for image_id in self.image_ids:
            rows, values = self._images[image_id]
            yield (
                image_id,
                {
                    category: ClassMatches(tp=tp, fp=fp, fn=fn, iou=value)
                    for (category, tp, fp, fn), value in zip(rows.tolist(), values.tolist(), strict=True)
                },
            )


def average(classes: Sequence[ClassMatches]) -> Average:
    """Means over those of the classes that occur."""
    found = [item for item in classes if item.occurs]

    def mean(name: str) -> float | None:
        return math.fsum(getattr(item, name) for item in found) / len(found) if found else None

    return Average(
        quality=mean("quality"),
        segmentation=mean("segmentation"),
        recognition=mean("recognition"),
        n=len(found),
    )


def _twice(image_id: ImageId) -> PredictionError:
    return PredictionError(
        f"image {image_id} is evaluated twice", fix="share the images out so that each is in one part only"
    )
