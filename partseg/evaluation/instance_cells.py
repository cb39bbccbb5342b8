"""Which predictions count, and in which order: a cell per image and category, best score first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from partseg.evaluation.instance_truth import Flags, InstanceTruth, IouType
from partseg.evaluation.matching import AREA_RANGES, THRESHOLDS
from partseg.evaluation.predictions import PredictionError, Predictions
from partseg.layout.runs import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSettings:
    """How predictions and truth are compared.

    Attributes:
        iou_type: overlap of masks or boxes.
        category_ids: what is scored, ascending.
        known_ids: all ids of the category table; predictions of others are refused. None allows any.
        per_cell: predictions that count per image and category, best first; None for all.
        per_image: predictions that count per image over all categories, before anything else; None for all.
        federated: as in LVIS, only categories are scored in an image that occur there or were looked for,
            mistakes in categories that are not annotated exhaustively do not count, crowds are ordinary, and
            nothing without an area counts.
        keep_order: settle equal scores by the order of the rows, as pycocotools does, instead of by box and
            mask. Only needed to repeat somebody else's number to the last digit.
        details: also compute overlaps below the lowest threshold, and those with other categories
            (``other_iou``), which takes several times longer.
        thresholds: overlaps, ascending.
        area_ranges: size ranges in pixels, both ends included.
    """

    iou_type: IouType = "segm"
    category_ids: tuple[int, ...] = ()
    known_ids: tuple[int, ...] | None = None
    per_cell: int | None = 100
    per_image: int | None = None
    federated: bool = False
    keep_order: bool = False
    details: bool = False
    thresholds: tuple[float, ...] = tuple(THRESHOLDS.tolist())
    area_ranges: tuple[tuple[float, float], ...] = field(
        default_factory=lambda: tuple((low, high) for low, high in AREA_RANGES.tolist())
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """The predictions that count, by cell, best score first.

    Attributes:
        rows: int64 [N], in the table of predictions.
        images: int64 [N], position of their image.
        keys: int64 [N], of their cell, ascending.
        ranks: int64 [N], place in the cell.
        not_exhaustive: bool [N], in a category that is not annotated exhaustively there.
    """

    rows: Ints
    images: Ints
    keys: Ints
    ranks: Ints
    not_exhaustive: Flags

    def at(self, rows: Ints) -> Cells:
        """Only those predictions; ranks are counted anew."""
        parts = {item.name: getattr(self, item.name)[rows] for item in fields(self)}
        return Cells(**{**parts, "ranks": places(parts["keys"])})


def cell_keys(images: Ints, categories: Ints) -> Ints:
    """A number for each pair of image and category, in the order of the images."""
    return (images << 32) + categories


def find_cells(
    settings: MatchSettings,
    truth: InstanceTruth,
    predictions: Predictions,
    records: Sequence[Any],
    key_of: Callable[[Ints], Ints],
) -> Cells:
    """Put the predictions of some images in order, leaving out what does not count.

    Args:
        settings: see there.
        truth: of the scored categories.
        predictions: in any order.
        records: the images, for what LVIS says about their categories.
        key_of: what tells the categories of a cell from those of another.

    Raises:
        PredictionError: predictions of another image or category, or without a mask that is needed.
    """
    images = _positions(truth.image_ids, predictions.image_ids)
    categories = predictions.category_ids.astype(np.int64)
    if settings.known_ids is not None:
        unnamed = np.setdiff1d(categories, np.asarray(settings.known_ids, np.int64))
        if len(unnamed):
            raise PredictionError(
                f"predictions name the category id {unnamed[0]}, which the dataset does not have",
                fix="predict with the categories of the dataset that is evaluated",
            )
    kept = np.isin(categories, np.asarray(settings.category_ids, np.int64))
    if settings.per_image is not None:
        order = predictions.order_by_score(images, keep_order=settings.keep_order)
        kept[order[places(images[order]) >= settings.per_image]] = False
    not_exhaustive = np.zeros(len(predictions), np.bool_)
    if settings.federated:
        own = cell_keys(images, categories)
        present = cell_keys(truth.images, truth.category_ids)
        kept &= np.isin(own, np.concatenate([present, listed_cells(records, "neg_category_ids")]))
        not_exhaustive = np.isin(own, listed_cells(records, "not_exhaustive_category_ids"))
    rows = np.flatnonzero(kept)
    chosen = predictions if len(rows) == len(predictions) else predictions[rows]
    if settings.iou_type == "segm" and None in chosen.rles:
        raise PredictionError("a prediction has no mask", fix="evaluate boxes instead (iou_type: bbox)")
    keys = cell_keys(images[rows], key_of(categories[rows]))
    order = chosen.order_by_score(keys, keep_order=settings.keep_order)
    ranks = places(keys[order])
    if settings.per_cell is not None:
        order, ranks = order[ranks < settings.per_cell], ranks[ranks < settings.per_cell]
    return Cells(
        rows=rows[order],
        images=images[rows[order]],
        keys=keys[order],
        ranks=ranks,
        not_exhaustive=not_exhaustive[rows[order]],
    )


def _positions(image_ids: Ints, wanted: Ints) -> Ints:
    order = np.argsort(image_ids, kind="stable")
    place = np.searchsorted(image_ids[order], wanted)
    found = np.append(image_ids[order], -1)[place] == wanted if len(wanted) else np.zeros(0, np.bool_)
    if not found.all():
        strangers = np.unique(wanted[~found])
        raise PredictionError(
            f"{len(strangers)} predicted images are not in this split, the first with id {strangers[0]}",
            fix="evaluate on the split the predictions were made for",
        )
    return order[place]


def listed_cells(records: Sequence[Any], name: str) -> Ints:
    """Cells of the categories that the images list."""
    lists = [np.asarray(getattr(record, name), np.int64) for record in records]
    images = np.repeat(np.arange(len(records)), [len(item) for item in lists])
    return cell_keys(images, np.concatenate([np.zeros(0, np.int64), *lists]))


def places(groups: Ints) -> Ints:
    """Place of each row in its group; the groups lie one after another."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
