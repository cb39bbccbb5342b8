"""The segments of one image, true or predicted, and the classes they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partseg.evaluation.match_counts import Floats
from partseg.evaluation.overlaps import LabelMap
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

VOID = 0
"""The label of pixels that belong to no segment."""


class PanopticClass(Protocol):
    """A class as the category table of a dataset has it."""

    @property
    def category_id(self) -> int:
        """What segments name."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def is_thing(self) -> bool:
        """Whether it has instances; the others are stuff."""


class ThingOrStuff(NamedTuple):
    """A class of its own, where there is no category table."""

    category_id: int
    name: str
    is_thing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticImage:
    """The segments of an image, true or predicted.

    Attributes:
        labels: the id of every pixel's segment; 0 is void.
        ids: int64 [S], the segments in the order of their list.
        category_ids: int64 [S].
        is_crowd: bool [S]; means nothing in a prediction.
        areas: [S], pixels as the list states them; None to count.
    """

    labels: LabelMap
    ids: Ints
    category_ids: Ints
    is_crowd: NDArray[np.bool_]
    areas: Floats | None = None


def panoptic_image(
    labels: LabelMap,
    ids: ArrayLike,
    category_ids: ArrayLike,
    *,
    is_crowd: ArrayLike | None = None,
    areas: ArrayLike | None = None,
) -> PanopticImage:
    """Segments from plain sequences; see :class:`PanopticImage`.

    Raises:
        PredictionError: the sequences differ in length.
    """
    values = np.asarray(ids, np.int64).reshape(-1)
    crowd = np.zeros(len(values), np.bool_) if is_crowd is None else np.asarray(is_crowd).astype(np.bool_)
    image = PanopticImage(
        labels=labels,
        ids=values,
        category_ids=np.asarray(category_ids, np.int64).reshape(-1),
        is_crowd=crowd,
        areas=None if areas is None else np.asarray(areas, np.float64),
    )
    lengths = {len(item) for item in (values, image.category_ids, crowd)}
    if len(lengths) > 1 or (image.areas is not None and len(image.areas) != len(values)):
        raise PredictionError("ids, categories, crowds and areas of the segments differ in length")
    return image


def from_segments_info(labels: LabelMap, segments_info: Iterable[Mapping[str, Any]]) -> PanopticImage:
    """Segments as the list ``segments_info`` of COCO panoptic JSON has them, true (with areas) or predicted.

    Raises:
        KeyError: a segment has no id or category.
    """
    rows = list(segments_info)
    stated = bool(rows) and all("area" in row for row in rows)
    return panoptic_image(
        labels,
        [row["id"] for row in rows],
        [row["category_id"] for row in rows],
        is_crowd=[row.get("iscrowd", 0) == 1 for row in rows],
        areas=[row["area"] for row in rows] if stated else None,
    )
