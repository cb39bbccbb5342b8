"""What every average precision has in common as a result: classes, groups, flat names, plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from partseg.evaluation.average_precision import Curves, mean
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_truth import CategoryLike, IouType


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAP:
    """One category's numbers. ``ap`` and ``ap50`` are fractions, None without ground truth."""

    category_id: int
    name: str
    group: str | None
    ap: float | None
    ap50: float | None
    ground_truth: int
    predictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class APResult:
    """Average precision on one split. All values are fractions from 0 to 1.

    Attributes:
        iou_type: what the overlap was measured on.
        stats: the headline numbers of the family; None where nothing could be measured.
        classes: one entry per evaluated category, by category id.
        groups: group name -> {"AP", "AP50", "classes"}: plain means over the group's classes
            that have ground truth, and their number.
        family: coco, lvis, voc, pascal_part, paco, ...
        protocol: ``correct``, or the publication whose rules were followed.
        images: how many were evaluated.
        notes: what a reader of the numbers has to know about them.
    """

    iou_type: IouType
    stats: dict[str, float | None]
    classes: tuple[ClassAP, ...]
    groups: dict[str, dict[str, float | int | None]]
    family: str = "coco"
    protocol: str = "correct"
    images: int = 0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        content = asdict(self)
        return {**content, "classes": list(content["classes"]), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`."""
        known = {item.name for item in fields(cls)}
        classes = tuple(ClassAP(**row) for row in content["classes"])
        values = {name: value for name, value in content.items() if name in known}
        return cls(**{**values, "classes": classes, "notes": tuple(content.get("notes", ()))})

    def metrics(self) -> dict[str, float]:
        """The headline numbers under flat names such as ``segm/AP50`` and ``segm/novel/AP``."""
        flat = {f"{self.iou_type}/{name}": value for name, value in self.stats.items()}
        for group, values in self.groups.items():
            flat |= {f"{self.iou_type}/{group}/{name}": values[name] for name in ("AP", "AP50")}
        return {name: float(value) for name, value in flat.items() if value is not None}


def class_rows(
    curves: Curves, table: DetectionTable, categories: Mapping[int, CategoryLike]
) -> tuple[ClassAP, ...]:
    """AP over all thresholds and at the first, of every category over all sizes."""
    ids = np.asarray(curves.category_ids, np.int64)
    truths = np.searchsorted(table.truths["category_id"], [ids, ids + 1])
    found = np.searchsorted(table.detections["category_id"], [ids, ids + 1])
    return tuple(
        ClassAP(
            category_id=category_id,
            name=categories[category_id].name,
            group=categories[category_id].group,
            ap=mean(curves.precision[:, :, row, 0]),
            ap50=mean(curves.precision[0, :, row, 0]),
            ground_truth=int(truths[1, row] - truths[0, row]),
            predictions=int(found[1, row] - found[0, row]),
        )
        for row, category_id in enumerate(curves.category_ids)
    )


def own_groups(classes: Sequence[ClassAP]) -> dict[str, list[int]]:
    """The groups that the category table names, and their ids."""
    names = sorted({row.group for row in classes if row.group is not None})
    return {name: [row.category_id for row in classes if row.group == name] for name in names}


def group_means(
    classes: Sequence[ClassAP], groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float | int | None]]:
    """Plain means over the classes of each group that have ground truth."""
    result: dict[str, dict[str, float | int | None]] = {}
    for name, ids in groups.items():
        members = [row for row in classes if row.category_id in set(ids) and row.ap is not None]
        result[name] = {
            "AP": float(np.mean([row.ap for row in members])) if members else None,
            "AP50": float(np.mean([row.ap50 for row in members])) if members else None,
            "classes": len(members),
        }
    return result
