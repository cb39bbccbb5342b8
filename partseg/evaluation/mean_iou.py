"""Semantic segmentation: IoU of every class, mean IoU, and accuracies, from the confusion of pixels.

Pixels whose true value is the ignored one (255) do not count. A class that occurs neither in the truth nor,
on counted pixels, in the predictions has no IoU and is left out of the mean. A predicted pixel of the ignored
value is a miss. Values are 0 to 1.

Protocols:

- ``mmseg``: truth at its original size, and so are the predictions; its aAcc is ``pixel_accuracy``, its mAcc
  ``mean_accuracy``. This is the correct one.
- ``sithu``: as sithu31296's semantic-segmentation, which resizes the truth with nearest neighbour to the size
  that the network sees. Predictions have that size, and the truth is brought to it. Its "MAcc" is
  ``mean_accuracy``, its "MF1" ``mean_f1``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partseg.evaluation.match_counts import Floats, ImageId
from partseg.evaluation.overlaps import LabelMap, overlaps
from partseg.evaluation.predictions import PredictionError
from partseg.layout.label_images import runs_to_rows
from partseg.layout.runs import Ints, Runs

SemanticProtocol = Literal["mmseg", "sithu"]

IGNORE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticClass:
    """One class; None where a measure is not defined.

    Attributes:
        value: of its pixels.
        true_pixels: how many there are.
        predicted_pixels: how many were predicted where the truth is known.
        correct_pixels: those that are both.
        accuracy: share of the true pixels that were found.
    """

    value: int
    name: str
    true_pixels: int
    predicted_pixels: int
    correct_pixels: int
    iou: float | None
    accuracy: float | None
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticResult:
    """Measures over any number of images; None where no class occurs.

    Attributes:
        protocol: whose rules were followed.
        images: how many there were.
        mean_iou: over the classes that occur.
        mean_accuracy: over the classes that are in the truth.
        mean_f1: over the classes that occur.
        pixel_accuracy: share of the counted pixels that are right.
        frequency_iou: IoU weighted by true pixels.
        classes: every class, in the order given.
        confusion: pixels by true class (rows) and predicted class (columns); the last column is no class.
    """

    protocol: SemanticProtocol
    images: int
    mean_iou: float | None
    mean_accuracy: float | None
    mean_f1: float | None
    pixel_accuracy: float | None
    frequency_iou: float | None
    classes: tuple[SemanticClass, ...]
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [list(row) for row in self.confusion]
        return {**asdict(self), "classes": [asdict(item) for item in self.classes], "confusion": rows}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave."""
        return cls(
            **{
                **content,
                "classes": tuple(SemanticClass(**item) for item in content["classes"]),
                "confusion": tuple(tuple(row) for row in content["confusion"]),
            }
        )

    def metrics(self) -> dict[str, float]:
        """The numbers that tables show; what is not defined is left out."""
        values = {name: getattr(self, name) for name in _METRICS}
        return {f"semantic/{name}": value for name, value in values.items() if value is not None}


_METRICS = ("mean_iou", "mean_accuracy", "mean_f1", "pixel_accuracy", "frequency_iou")


class _Image(NamedTuple):
    """Classes of one image.

    Attributes:
        place: int32 [K], of each class that occurs in it.
        pixels: int64 [K, 3]: true, predicted, both.
    """

    place: NDArray[np.int32]
    pixels: Ints


class MeanIoU:
    """Semantic measures, image by image.

    Args:
        classes: name of every class by the value of its pixels.
        protocol: see the module.
        ignore: value of the pixels that do not count.

    Raises:
        ValueError: a class has the ignored value, or there is none.
    """

    def __init__(
        self, classes: Mapping[int, str], protocol: SemanticProtocol = "mmseg", *, ignore: int = IGNORE
    ) -> None:
        if protocol not in get_args(SemanticProtocol):
            raise ValueError(f"no protocol {protocol!r} of mean IoU")
        if ignore in classes or not classes:
            raise ValueError("there are no classes, or one has the ignored value")
        self.classes, self.protocol, self.ignore = dict(classes), protocol, ignore
        self._values, self._place = np.unique(np.array(list(classes), np.int64), return_index=True)
        self._confusion = np.zeros((len(classes), len(classes) + 1), np.int64)
        self._images: dict[ImageId, _Image] = {}

    def __len__(self) -> int:
        return len(self._images)

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        """Numbers before names, each in ascending order."""
        return tuple(sorted(self._images, key=lambda item: (isinstance(item, str), item)))

    def add(self, image_id: ImageId, truth: LabelMap, predicted: LabelMap, *, where: object = None) -> None:
        """Compare one image.

        Args:
            image_id: not added before.
            truth: the class of every pixel, or the ignored value.
            predicted: the same.
            where: what errors name: the file of the prediction, say; the image by default.

        Raises:
            PredictionError: the maps differ in size (under ``mmseg``), a pixel has a value that is neither a
                class nor the ignored one, or the image was added before.
        """
        place = f"image {image_id}" if where is None else str(where)
        if image_id in self._images:
            raise PredictionError(f"image {image_id} is evaluated twice", where=where)
        if self.protocol == "sithu":
            truth = resize_labels(truth, _size(predicted))
        found = overlaps(truth, predicted, where=place)
        rows = self._index(found.truth, "the truth", place)
        columns = self._index(found.predicted, "the prediction", place)
        kept = rows >= 0
        count = len(self.classes)
        flat = rows[kept] * (count + 1) + np.where(columns[kept] < 0, count, columns[kept])
        confusion = np.bincount(flat, found.pixels[kept], count * (count + 1)).astype(np.int64)
        confusion = confusion.reshape(count, count + 1)
        self._confusion += confusion
        pixels = np.stack([confusion.sum(1), confusion[:, :-1].sum(0), np.diagonal(confusion)], 1)
        present = np.flatnonzero(pixels.any(1))
        self._images[image_id] = _Image(present.astype(np.int32), pixels[present])

    def merge(self, other: MeanIoU) -> MeanIoU:
        """Both together; neither changes.

        Raises:
            PredictionError: an image is in both.
            ValueError: they have other classes, another protocol or ignored value.
        """
        if (self.classes, self.protocol, self.ignore) != (other.classes, other.protocol, other.ignore):
            raise ValueError("states of different classes or protocols cannot be merged")
        both = self._images.keys() & other._images.keys()
        if both:
            raise PredictionError(f"image {next(iter(both))} is evaluated twice")
        merged = MeanIoU(self.classes, self.protocol, ignore=self.ignore)
        order = [list(other.classes).index(value) for value in self.classes]
        merged._confusion = self._confusion + other._confusion[order][:, [*order, len(order)]]
        back = np.argsort(order).astype(np.int32)
        theirs = {key: _Image(back[item.place], item.pixels) for key, item in other._images.items()}
        merged._images = self._images | theirs
        return merged

    def result(self) -> SemanticResult:
        """The measures over all images so far."""
        pixels = np.stack(
            [self._confusion.sum(1), self._confusion[:, :-1].sum(0), np.diagonal(self._confusion)], 1
        )
        classes = [
            _measured(value, name, *row)
            for (value, name), row in zip(self.classes.items(), pixels.tolist(), strict=True)
        ]
        total, right = int(pixels[:, 0].sum()), int(pixels[:, 2].sum())
        weighted = [item.iou * item.true_pixels for item in classes if item.iou is not None]
        return SemanticResult(
            protocol=self.protocol,
            images=len(self._images),
            mean_iou=_mean([item.iou for item in classes]),
            mean_accuracy=_mean([item.accuracy for item in classes]),
            mean_f1=_mean([item.f1 for item in classes]),
            pixel_accuracy=right / total if total else None,
            frequency_iou=math.fsum(weighted) / total if total else None,
            classes=tuple(classes),
            confusion=tuple(tuple(row) for row in self._confusion.tolist()),
        )

    def table(self) -> Ints:
        """Pixels int64 [I, C, 3] of every image of ``image_ids`` and class: true, predicted, both."""
        dense = np.zeros((len(self._images), len(self.classes), 3), np.int64)
        for row, image_id in zip(dense, self.image_ids, strict=True):
            item = self._images[image_id]
            row[item.place] = item.pixels
        return dense

    def resampled(self, weights: ArrayLike) -> dict[str, Floats]:
        """The numbers of ``result().metrics()`` for B samples of the images.

        Args:
            weights: int [B, I], how often each image of ``image_ids`` is in each sample.

        Returns:
            float64 [B] by name; nan where it is not defined.
        """
        table = self.table()
        pixels = np.asarray(weights, np.float64) @ table.reshape(len(table), -1)
        true, predicted, both = np.moveaxis(pixels.reshape(-1, len(self.classes), 3), 2, 0)

        def share(part: Floats, whole: Floats) -> Floats:
            return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)

        def mean(values: Floats) -> Floats:
            known = ~np.isnan(values)
            return share(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64))

        iou = share(both, true + predicted - both)
        return {
            "semantic/mean_iou": mean(iou),
            "semantic/mean_accuracy": mean(share(both, true)),
            "semantic/mean_f1": mean(share(2 * both, true + predicted)),
            "semantic/pixel_accuracy": share(both.sum(1), true.sum(1)),
            "semantic/frequency_iou": share(np.nan_to_num(iou * true).sum(1), true.sum(1)),
        }

    def _index(self, values: Ints, whose: str, where: str) -> Ints:
        """The place of each value's class, -1 for the ignored one."""
        place = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
        known = self._values[place] == values
        strange = values[~known & (values != self.ignore)]
        if len(strange):
            raise PredictionError(
                f"{whose} has pixels of value {strange[0]}: no class, and not the ignored {self.ignore}",
                where=where,
                fix="use the values of the classes that are evaluated",
            )
        return np.where(known, self._place[place], -1)


def resize_labels(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """A label map in another size by nearest neighbour, as torch's ``interpolate(mode="nearest")``.

    Args:
        labels: a label map.
        size: height and width.
    """
    old = _size(labels)
    if old == size:
        return labels
    array = runs_to_rows(labels, labels.labels) if isinstance(labels, Runs) else labels
    rows, columns = (_nearest(before, after) for before, after in zip(old, size, strict=True))
    resized: NDArray[Any] = array[rows][:, columns]
    return resized


def _nearest(before: int, after: int) -> Ints:
    """floor(i * scale) in single precision, the source of each of ``after`` places."""
    scale = np.float32(before) / np.float32(after)
    places = np.floor(np.arange(after, dtype=np.float32) * scale).astype(np.int64)
    return np.asarray(np.minimum(places, before - 1))


def _size(labels: LabelMap) -> tuple[int, int]:
    return (labels.height, labels.width) if isinstance(labels, Runs) else labels.shape[:2]


def _measured(value: int, name: str, true: int, predicted: int, both: int) -> SemanticClass:
    union = true + predicted - both
    return SemanticClass(
        value=value,
        name=name,
        true_pixels=true,
        predicted_pixels=predicted,
        correct_pixels=both,
        iou=both / union if union else None,
        accuracy=both / true if true else None,
        f1=2 * both / (true + predicted) if union else None,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
