"""The worst images of an evaluation, drawn: what is true beside what was predicted."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from partseg.errors import PartsegError
from partseg.evaluation.assess import Assessed
from partseg.evaluation.errors_by_kind import KINDS, RIGHT, UNCOUNTED, Kinds, kinds_of
from partseg.evaluation.overlaps import LabelMap
from partseg.evaluation.panoptic_files import PanopticFolder, PartFolder, SemanticFolder
from partseg.evaluation.panoptic_truth import PanopticTruth, PartTruth, SemanticTruth
from partseg.evaluation.predictions import Predictions
from partseg.layout import ImageRecord, Runs, Split, rle_to_mask
from partseg.layout.label_images import runs_to_rows
from partseg.layout.uids import unpack_uids
from partseg.report.html import picture_uri
from partseg.report.overlays import Colour, Shape, draw, palette
from partseg.report.pictures import grey, shape_mask

COLOURS: Mapping[str, Colour] = {
    "right": (46, 150, 84),
    "classification": (146, 84, 190),
    "localisation": (232, 150, 30),
    "both": (200, 70, 130),
    "duplicate": (70, 130, 210),
    "background": (206, 58, 40),
    "missed": (206, 58, 40),
}
"""Of right predictions and of the kinds of errors."""

LEAST_SCORE = 0.3
"""Predictions that are drawn, unless there are none."""

MOST_DRAWN = 24
"""Predictions drawn in one picture, best score first."""

_SHORT_SIDE, _QUALITY = 340, 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture.

    Attributes:
        title: what it shows.
        uri: address with the picture in it.
    """

    title: str
    uri: str


class InstancePictures:
    """Pictures of objects or parts.

    Args:
        item: an evaluation of objects or parts; with details, errors have the colours of their kinds.
        split: of the dataset, with or without photos.
        predictions: what was evaluated.
        names: of categories.
    """

    def __init__(
        self, item: Assessed, split: Split, predictions: Predictions, names: Mapping[int, str]
    ) -> None:
        assert item.table is not None
        self.table, self.split, self.predictions, self.names = item.table, split, predictions, names
        details = not np.isnan(self.table.detections["other_iou"]).any()
        self.kinds: Kinds | None = kinds_of(self.table) if details else None
        self._places = places_of(split)

    def panels(self, image_id: int) -> list[Panel]:
        """What is true, found in green and missed in red, and what was predicted."""
        index = self._places[image_id]
        record, image = self.split[index], photo(self.split, index)
        return [
            Panel(title="true: found and missed", uri=_uri(self._draw(image, self._truth(record)))),
            Panel(title="predicted", uri=_uri(self._draw(image, self._predicted(record)))),
        ]

    def _draw(self, image: NDArray[np.uint8], shapes: Sequence[tuple[str, Shape]]) -> Image.Image:
        # a colour goes by the name, so two of one name and different kinds need different names
        colours: dict[str, Colour] = {}
        named = []
        for place, (kind, shape) in enumerate(shapes):
            name = f"{place}:{shape.name}"
            colours[name] = COLOURS[kind]
            named.append(Shape(mask=shape.mask, name=name, score=shape.score, filled=shape.filled))
        return draw(image, named, colours, short_side=_SHORT_SIDE, opacity=0.4)

    def _truth(self, record: ImageRecord) -> list[tuple[str, Shape]]:
        rows = np.flatnonzero(self.table.truths["image_id"] == record.image_id)
        gone = self.table.missed()[rows]
        place = {ann_id: row for row, ann_id in enumerate(record.ann_ids.tolist())}
        counted = self.table.truths["ignored"][rows] & np.uint8(1) == 0

        def shape(ann_id: int, category_id: int) -> Shape:
            return Shape(mask=shape_mask(record, place[ann_id]), name=self._name(category_id))

        return [
            ("missed" if missed else "right", shape(ann, key))
            for ann, key, missed, counts in zip(
                self.table.truths["ann_id"][rows].tolist(),
                self.table.truths["category_id"][rows].tolist(),
                gone.tolist(),
                counted.tolist(),
                strict=True,
            )
            if counts
        ]

    def _predicted(self, record: ImageRecord) -> list[tuple[str, Shape]]:
        own = self.predictions.of_image(record.image_id)
        rows = np.flatnonzero(self.table.detections["image_id"] == record.image_id)
        rows = rows[np.argsort(-self.table.detections["score"][rows], kind="stable")]
        sure = rows[self.table.detections["score"][rows] >= LEAST_SCORE]
        rows = (sure if len(sure) else rows)[:MOST_DRAWN]
        order = own.order_by_score(own.category_ids.astype(np.int64))
        cells: dict[int, list[int]] = {}
        for row in order.tolist():
            cells.setdefault(int(own.category_ids[row]), []).append(row)
        found = []
        for row in rows.tolist():
            item = self.table.detections[row]
            kind = self._kind(row)
            category, score = int(item["category_id"]), float(item["score"])
            at = _row_of(cells.get(category, []), own.scores, score, int(item["rank"]))
            if kind is not None and at is not None:
                name = self._name(category)
                found.append((kind, Shape(mask=_mask(own, at, record), name=name, score=score)))
        return found

    def _kind(self, row: int) -> str | None:
        """Its kind; without details, wrong predictions are called background. None: it does not count."""
        if self.kinds is not None:
            kind = int(self.kinds.detections[row])
            return "right" if kind == RIGHT else None if kind == UNCOUNTED else KINDS[kind]
        if self.table.hits()[row]:
            return "right"
        return "background" if self.table.mistakes()[row] else None

    def _name(self, category_id: int) -> str:
        return self.names.get(category_id, str(category_id)).replace(":", " ")


class MapPictures:
    """Pictures of segments or classes: the class of every pixel, true and predicted, and where they differ.

    Args:
        split: of the dataset, with or without photos.
        maps: true and predicted classes of every pixel, by position of the image.
        names: of the classes.
    """

    def __init__(
        self,
        split: Split,
        maps: Callable[[int], tuple[LabelMap, LabelMap]],
        names: Mapping[int, str],
    ) -> None:
        self.split, self.maps, self.names = split, maps, names
        colours = palette(names.values())
        self._colours = {key: colours[name] for key, name in names.items()}
        self._places = places_of(split)

    def panels(self, image_id: int) -> list[Panel]:
        """The photo with true classes, with predicted ones, and with what is wrong in red."""
        index = self._places[image_id]
        image = photo(self.split, index)
        true, predicted = (_rows(item) for item in self.maps(index))
        if predicted.shape != true.shape:
            predicted = np.asarray(
                Image.fromarray(predicted.astype(np.int32)).resize(true.shape[::-1], Image.Resampling.NEAREST)
            )
        known = np.isin(true, np.array(list(self._colours), np.int64))
        wrong = known & (true != predicted)
        red = np.array(COLOURS["background"], np.float32)
        tinted = np.where(wrong[..., None], image * 0.35 + red * 0.65, image * 0.7)
        return [
            Panel(title="true", uri=_uri(self._tint(image, true))),
            Panel(title="predicted", uri=_uri(self._tint(image, np.where(known, predicted, -1)))),
            Panel(title="wrong", uri=_uri(_small(tinted))),
        ]

    def _tint(self, image: NDArray[np.uint8], labels: NDArray[Any]) -> Image.Image:
        colours = np.full((*labels.shape, 3), 40, np.float32)
        for key in np.unique(labels).tolist():
            if key in self._colours:
                colours[labels == key] = self._colours[key]
        return _small(image * 0.35 + colours * 0.65)


def panoptic_maps(
    truth: PanopticTruth, files: PanopticFolder
) -> tuple[Callable[[int], tuple[LabelMap, LabelMap]], dict[int, str]]:
    """Class maps of COCO panoptic predictions, and the names of the classes."""

    def maps(index: int) -> tuple[LabelMap, LabelMap]:
        pair = []
        for item in (truth.image(index), files.read(truth.key(index))):
            table = dict(zip(item.ids.tolist(), item.category_ids.tolist(), strict=True))
            labels, place = np.unique(_rows(item.labels), return_inverse=True)
            values = np.array([table.get(label, -1) for label in labels.tolist()], np.int64)
            pair.append(values[place].reshape(_rows(item.labels).shape))
        return pair[0], pair[1]

    return maps, {item.category_id: item.name for item in truth.categories()}


def part_maps(
    truth: PartTruth, files: PartFolder
) -> tuple[Callable[[int], tuple[LabelMap, LabelMap]], dict[int, str]]:
    """Maps of classes and parts (class * 1000 + part), and their names; a part of unknown number is 0."""
    numbers = truth.spec.part_numbers(keep_unlisted=False)
    with_parts = np.array([item.sid for item in truth.spec.classes if item.parts], np.int64)
    names = {item.sid * 1000: item.name for item in truth.spec.classes}
    for item in truth.spec.classes:
        names |= {item.sid * 1000 + number: f"{item.name}:{part}" for number, part in item.parts}

    def coded(sids: Any, pids: Any) -> NDArray[np.int64]:
        parts = np.where(np.isin(sids, with_parts) & (pids != 255), pids, 0)
        return np.asarray(sids * 1000 + parts, np.int64)

    def maps(index: int) -> tuple[LabelMap, LabelMap]:
        labels, place = np.unique(_rows(truth.runs(index)), return_inverse=True)
        ids = unpack_uids(labels, missing=0)
        true = coded(ids.sids, numbers[np.where(ids.pids > 0, ids.sids_pids, ids.sids)])
        predicted = files.read(str(truth.key(index)))
        found, at = np.unique(_rows(predicted.labels), return_inverse=True)
        decoded = predicted.decode(found, numbers)
        shape = _rows(predicted.labels).shape
        return (
            true[place].reshape(_rows(truth.runs(index)).shape),
            coded(decoded.sids, decoded.pids)[at].reshape(shape),
        )

    return maps, names


def semantic_maps(
    truth: SemanticTruth, files: SemanticFolder
) -> tuple[Callable[[int], tuple[LabelMap, LabelMap]], dict[int, str]]:
    """Maps of classes and their names."""

    def maps(index: int) -> tuple[LabelMap, LabelMap]:
        return truth.runs(index), files.read(truth.file_name(index))

    return maps, truth.classes()


def places_of(split: Split) -> dict[int, int]:
    """Position of every image by its id."""
    ids = split.batch("images")["image_id"].to_pylist()
    return {image_id: place for place, image_id in enumerate(ids)}


def photo(split: Split, index: int) -> NDArray[np.uint8]:
    """The photo, or a blank image of its size where it is not at hand."""
    try:
        return grey(split[index]) if split.image_root is None else split.read_image(index)
    except PartsegError:
        return grey(split[index])


def _rows(labels: LabelMap) -> NDArray[Any]:
    """Integers [H, W]."""
    if isinstance(labels, Runs):
        return runs_to_rows(labels, labels.labels)
    if labels.ndim == 3:
        wide = labels.astype(np.int64)
        return np.asarray(wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2])
    return np.asarray(labels.astype(np.int64))


def _mask(own: Predictions, row: int, record: ImageRecord) -> NDArray[np.bool_]:
    rle = own.rles[row]
    if rle is not None:
        return rle_to_mask(rle, record.height, record.width)
    x, y, width, height = own.boxes_xywh[row].tolist()
    mask = np.zeros((record.height, record.width), np.bool_)
    mask[max(0, round(y)) : max(0, round(y + height)), max(0, round(x)) : max(0, round(x + width))] = True
    return mask


def _row_of(cell: Sequence[int], scores: NDArray[np.float64], score: float, rank: int) -> int | None:
    """The prediction of a record: at its rank in its cell, or else one of that score."""
    if rank < len(cell) and scores[cell[rank]] == score:
        return cell[rank]
    return next((row for row in cell if scores[row] == score), None)


def _small(pixels: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    scale = _SHORT_SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return picture_uri(buffer.getvalue())
