"""Ground truth of some images as columns, for matching predictions of objects or parts with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import Ints

IouType = Literal["segm", "bbox"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class CategoryLike(Protocol):
    """What evaluation needs to know of a category of the layout."""

    @property
    def category_id(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str | None: ...  # noqa: D102


class SplitLike(Protocol):
    """A sequence of image records, as :class:`partseg.layout.Split` is."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceTruth:
    """The true objects and parts of I images, G in all, image after image.

    Attributes:
        image_ids: int64 [I].
        sizes: height and width of each image, int64 [I, 2].
        images: int64 [G], position of each one's image.
        ann_ids: int64 [G].
        category_ids: int64 [G].
        boxes_xywh: float64 [G, 4], pixels.
        areas: float64 [G], pixels; what size ranges go by.
        rles: G COCO compressed counts, or None.
        is_crowd: bool [G]; a crowd may be matched any number of times and never counts.
        is_ignore: bool [G]; matched at most once and never counts.
        is_void: bool [G]; a match with it counts as a miss, as with annotation id 0 in pycocotools.
        parents: int64 [G], row of each part's object here, or -1.
    """

    image_ids: Ints
    sizes: Ints
    images: Ints
    ann_ids: Ints
    category_ids: Ints
    boxes_xywh: Floats
    areas: Floats
    rles: list[bytes | None]
    is_crowd: Flags
    is_ignore: Flags
    is_void: Flags
    parents: Ints

    def __len__(self) -> int:
        return len(self.images)

    def where(self, kept: Flags) -> InstanceTruth:
        """Only the rows that a mask [G] names; the images stay."""
        place = np.where(kept, np.cumsum(kept) - 1, -1)
        parents = self.parents[kept]
        return InstanceTruth(
            image_ids=self.image_ids,
            sizes=self.sizes,
            images=self.images[kept],
            ann_ids=self.ann_ids[kept],
            category_ids=self.category_ids[kept],
            boxes_xywh=self.boxes_xywh[kept],
            areas=self.areas[kept],
            rles=list(compress(self.rles, kept.tolist())),
            is_crowd=self.is_crowd[kept],
            is_ignore=self.is_ignore[kept],
            is_void=self.is_void[kept],
            parents=np.where(parents >= 0, place[parents], -1),
        )


def read_truth(records: Sequence[Any]) -> InstanceTruth:
    """Everything that is true of some images.

    Args:
        records: image records of the layout; ``parent_rows`` may be missing.
    """
    counts = np.array([len(record.ann_ids) for record in records], np.int64)
    starts = np.cumsum(counts) - counts
    rows = int(counts.sum())
    parents = np.full(rows, -1, np.int64)
    for record, start in zip(records, starts.tolist(), strict=True):
        own = getattr(record, "parent_rows", None)
        if own is not None and len(own):
            parents[start : start + len(own)] = np.where(own >= 0, own + start, -1)
    return InstanceTruth(
        image_ids=np.array([record.image_id for record in records], np.int64),
        sizes=np.array([(record.height, record.width) for record in records], np.int64).reshape(-1, 2),
        images=np.repeat(np.arange(len(records)), counts),
        ann_ids=_joined([record.ann_ids for record in records], np.int64),
        category_ids=_joined([record.category_ids for record in records], np.int64),
        boxes_xywh=_joined([record.boxes_xywh for record in records], np.float64).reshape(-1, 4),
        areas=_joined([record.areas for record in records], np.float64),
        rles=[rle for record in records for rle in record.rles],
        is_crowd=_joined([record.is_crowd for record in records], np.bool_),
        is_ignore=_joined([record.is_ignore for record in records], np.bool_),
        is_void=np.zeros(rows, np.bool_),
        parents=parents,
    )


def need_masks(truth: InstanceTruth) -> None:
    """Refuse truth without masks.

    Raises:
        PredictionError: names the first annotation that has none.
    """
    if None in truth.rles:
        row = truth.rles.index(None)
        raise PredictionError(
            f"annotation {truth.ann_ids[row]} has no mask",
            where=f"image {truth.image_ids[truth.images[row]]}",
            fix="evaluate boxes instead (iou_type: bbox)",
        )


def chosen_categories(
    categories: Iterable[CategoryLike], wanted: Collection[int] | None = None
) -> tuple[int, ...]:
    """Ids of the categories to score, ascending.

    Args:
        categories: the category table.
        wanted: their ids; by default every part, or every category where there are no parts.

    Raises:
        PredictionError: the table does not have one of them.
    """
    table = {item.category_id: item for item in categories}
    if wanted is None:
        parts = sorted(item.category_id for item in table.values() if item.kind == "part")
        return tuple(parts or sorted(table))
    if unknown := sorted(set(wanted) - table.keys()):
        raise PredictionError(f"no category has the id {unknown[0]}", fix="choose ids of the category table")
    return tuple(sorted(set(wanted)))


def _joined(columns: Sequence[Any], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *(np.asarray(item, kind).reshape(-1) for item in columns)])
