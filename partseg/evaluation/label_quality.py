"""How good pseudo-labels are where the truth is known after all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from partseg.evaluation.instance_truth import CategoryLike, SplitLike


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelQuality:
    """Pseudo-labelled parts against true parts of the same name.

    Attributes:
        images: images that have pseudo-labels and truth.
        parts: pseudo-labelled parts.
        true_parts: true parts in images of the truth, labelled or not.
        mean_iou: mean over the pseudo-labelled parts of the mask overlap with their true part; a part
            without a partner counts 0.
        precision50: share of the pseudo-labelled parts whose overlap is at least one half.
        recall50: share of the true parts that are found that well.
    """

    images: int
    parts: int
    true_parts: int
    mean_iou: float
    precision50: float
    recall50: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for a metrics file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def label_quality(
    parsed: SplitLike,
    parsed_categories: Sequence[CategoryLike],
    truth: SplitLike,
    truth_categories: Sequence[CategoryLike],
) -> LabelQuality:
    """Compare the masks of parts in two datasets over the same images.

    Images are paired by file name and parts by category name. Within one name the pairs of largest
    overlap are matched first; every part is used once.

    Args:
        parsed: images with pseudo-labelled parts; parts without a mask do not count.
        parsed_categories: their categories.
        truth: at least the same images, with true parts.
        truth_categories: their categories.
    """
    own = _part_names(parsed_categories)
    true = _part_names(truth_categories)
    found = {record.file_name: _masks(record, own) for record in _records(parsed)}
    overlaps: list[float] = []
    images = parts = true_parts = 0
    for record in _records(truth):
        masks = _masks(record, true)
        true_parts += sum(len(rles) for rles in masks.values())
        guesses = found.get(record.file_name)
        if guesses is None:
            continue
        images += 1
        for name, rles in guesses.items():
            parts += len(rles)
            overlaps += _matched(rles, masks.get(name, []))
    good = sum(overlap >= 0.5 for overlap in overlaps)
    return LabelQuality(
        images=images,
        parts=parts,
        true_parts=true_parts,
        mean_iou=sum(overlaps) / parts if parts else 0.0,
        precision50=good / parts if parts else 0.0,
        recall50=good / true_parts if true_parts else 0.0,
    )


def _records(split: SplitLike) -> list[Any]:
    return [split[i] for i in range(len(split))]


def _part_names(categories: Sequence[CategoryLike]) -> dict[int, str]:
    return {c.category_id: c.name for c in categories if c.kind == "part"}


def _masks(record: Any, names: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    result: dict[str, list[dict[str, Any]]] = {}
    for category_id, rle in zip(record.category_ids.tolist(), record.rles, strict=True):
        if category_id in names and rle is not None:
            coded = {"size": [record.height, record.width], "counts": rle}
            result.setdefault(names[category_id], []).append(coded)
    return result


def _matched(guesses: list[dict[str, Any]], truths: list[dict[str, Any]]) -> list[float]:
    """Overlaps of matched pairs, best first."""
    if not truths:
        return []
    iou: npt.NDArray[np.float64] = np.array(coco_mask.iou(guesses, truths, [0] * len(truths)))
    result = []
    while iou.size and iou.max() > 0:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        result.append(float(iou[row, column]))
        iou[row, :] = iou[:, column] = 0
    return result
