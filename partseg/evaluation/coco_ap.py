"""COCO average precision of part predictions, per class and for groups of classes.

The numbers are pycocotools' own. What is added: ground truth straight from the layout, means over
groups of classes (the base and novel parts of the published cross-category table are plain means
of per-class values over the classes that have ground truth), and errors instead of silence when
predictions name an image or a category the data does not have.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from partseg.evaluation.predictions import PredictionError, Predictions

IouType = Literal["segm", "bbox"]

# The twelve numbers of COCOeval.summarize(), in its order. The recall names follow the default
# limits of 1, 10 and 100 predictions per image.
STATS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


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
        stats: the twelve COCO numbers by the names in STATS; None where nothing could be measured.
        classes: one entry per evaluated category, by category id.
        groups: group name -> {"AP", "AP50", "classes"}: plain means over the group's classes
            that have ground truth, and their number.
    """

    iou_type: IouType
    stats: dict[str, float | None]
    classes: tuple[ClassAP, ...]
    groups: dict[str, dict[str, float | int | None]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        names = ClassAP.__dataclass_fields__
        return {
            "iou_type": self.iou_type,
            "stats": self.stats,
            "groups": self.groups,
            "classes": [{name: getattr(row, name) for name in names} for row in self.classes],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> APResult:
        """The inverse of :meth:`as_dict`."""
        classes = tuple(ClassAP(**row) for row in content["classes"])
        return cls(**{**content, "classes": classes})

    def metrics(self) -> dict[str, float]:
        """The headline numbers under flat names such as ``segm/AP50`` and ``segm/novel/AP``."""
        flat = {f"{self.iou_type}/{name}": value for name, value in self.stats.items()}
        for group, values in self.groups.items():
            flat |= {f"{self.iou_type}/{group}/{name}": values[name] for name in ("AP", "AP50")}
        return {name: float(value) for name, value in flat.items() if value is not None}


def evaluate(
    split: SplitLike,
    categories: Sequence[CategoryLike],
    predictions: Predictions,
    *,
    iou_type: IouType = "segm",
    category_ids: Sequence[int] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    max_detections: int = 100,
    keep_order: bool = False,
) -> APResult:
    """Average precision of predictions on a split.

    Args:
        split: the images with their ground truth.
        categories: the category table of the dataset.
        predictions: rows in any order.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: the categories to score; by default every part category, or every category
            where the dataset has no parts. Predictions of other known categories are left out.
        groups: group name -> category ids; by default the groups named in the category table.
        max_detections: predictions counted per image and category, best first.
        keep_order: settle equal scores by the order of the rows, as pycocotools does, instead of
            the table's own order. Only needed to repeat somebody else's number to the last digit.

    Raises:
        PredictionError: a prediction names an unknown image or category, or has no mask although
            masks are compared; or ``category_ids`` names an unknown category.
    """
    table = {category.category_id: category for category in categories}
    chosen = _chosen_ids(table, category_ids)
    truth = _ground_truth(split, table, chosen, iou_type)
    rows = _checked(predictions, truth, table, iou_type)
    rows = rows[np.isin(rows.category_ids, chosen)]
    if not keep_order:
        rows = rows.canonical()
    found = _detections(rows, truth, iou_type)
    with _silence():
        run = _Evaluator(_indexed(truth), _indexed(found), iou_type)
        run.params.catIds = list(chosen)
        run.params.maxDets = [1, 10, max_detections]
        run.evaluate()
        run.accumulate()
        stats = _stats(run)
    classes = _per_class(run, table, chosen, truth, rows)
    return APResult(
        iou_type=iou_type,
        stats=stats,
        classes=classes,
        groups=_group_means(classes, groups if groups is not None else _own_groups(classes)),
    )


class _Evaluator(COCOeval):  # type: ignore[misc]
    """COCOeval that also honours the layout's ``is_ignore`` (COCO itself only knows crowds)."""

    def _prepare(self) -> None:
        super()._prepare()
        for rows in self._gts.values():
            for annotation in rows:
                annotation["ignore"] = annotation["ignore"] or annotation["is_ignore"]


def _chosen_ids(table: Mapping[int, CategoryLike], wanted: Sequence[int] | None) -> tuple[int, ...]:
    if wanted is not None:
        unknown = sorted(set(wanted) - table.keys())
        if unknown:
            raise PredictionError(
                f"no category has the id {unknown[0]}", fix="choose ids of the category table"
            )
        return tuple(sorted(set(wanted)))
    parts = sorted(c.category_id for c in table.values() if c.kind == "part")
    return tuple(parts or sorted(table))


def _ground_truth(
    split: SplitLike, table: Mapping[int, CategoryLike], chosen: Sequence[int], iou_type: IouType
) -> dict[str, Any]:
    """The split as a COCO dictionary holding the chosen categories only."""
    wanted = np.asarray(chosen)
    images, annotations = [], []
    for index in range(len(split)):
        record = split[index]
        size = [int(record.height), int(record.width)]
        images.append({"id": int(record.image_id), "height": size[0], "width": size[1]})
        for row in np.flatnonzero(np.isin(record.category_ids, wanted)):
            annotation = {
                "id": int(record.ann_ids[row]),
                "image_id": int(record.image_id),
                "category_id": int(record.category_ids[row]),
                "bbox": [float(v) for v in record.boxes_xywh[row]],
                "area": float(record.areas[row]),
                "iscrowd": int(record.is_crowd[row]),
                "is_ignore": int(record.is_ignore[row]),
            }
            if iou_type == "segm":
                rle = record.rles[row]
                if rle is None:
                    raise PredictionError(
                        f"annotation {annotation['id']} has no mask",
                        where=getattr(record, "file_name", None),
                        fix="evaluate boxes instead (iou_type: bbox)",
                    )
                annotation["segmentation"] = {"size": size, "counts": bytes(rle)}
            annotations.append(annotation)
    names = [{"id": i, "name": table[i].name} for i in chosen]
    return {"images": images, "annotations": annotations, "categories": names}


def _checked(
    predictions: Predictions, truth: Mapping[str, Any], table: Mapping[int, CategoryLike], iou_type: IouType
) -> Predictions:
    known = np.array([image["id"] for image in truth["images"]], dtype=np.int64)
    strangers = np.setdiff1d(predictions.image_ids, known)
    if len(strangers):
        raise PredictionError(
            f"{len(strangers)} predicted images are not in this split, the first with id {strangers[0]}",
            fix="evaluate on the split the predictions were made for",
        )
    unnamed = np.setdiff1d(predictions.category_ids, np.array(sorted(table), dtype=np.int64))
    if len(unnamed):
        raise PredictionError(
            f"predictions name the category id {unnamed[0]}, which the dataset does not have",
            fix="predict with the categories of the dataset that is evaluated",
        )
    if iou_type == "segm" and any(rle is None for rle in predictions.rles):
        raise PredictionError("a prediction has no mask", fix="evaluate boxes instead (iou_type: bbox)")
    return predictions


def _detections(rows: Predictions, truth: Mapping[str, Any], iou_type: IouType) -> dict[str, Any]:
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    masks = [
        {"size": sizes[int(image_id)], "counts": rle}
        for image_id, rle in zip(rows.image_ids, rows.rles, strict=True)
        if iou_type == "segm"
    ]
    # As in COCO's own loader: mask area for masks, box area for boxes. One mask at a time, because
    # the list form of pycocotools 2.0.11 fails on more than 255 masks with numpy 2.
    areas = [coco_mask.area(mask) for mask in masks] or rows.boxes_xywh[:, 2] * rows.boxes_xywh[:, 3]
    annotations = [
        {
            "id": i + 1,  # pycocotools takes a match with id 0 for a miss
            "image_id": int(rows.image_ids[i]),
            "category_id": int(rows.category_ids[i]),
            "score": float(rows.scores[i]),
            "bbox": rows.boxes_xywh[i].tolist(),
            "area": float(areas[i]),
            "iscrowd": 0,
        }
        | ({"segmentation": masks[i]} if masks else {})
        for i in range(len(rows))
    ]
    return {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}


def _indexed(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _stats(run: COCOeval) -> dict[str, float | None]:
    largest = run.params.maxDets[-1]
    p, r = run.eval["precision"], run.eval["recall"]
    area = {name: i for i, name in enumerate(run.params.areaRngLbl)}
    level = {round(float(t), 2): i for i, t in enumerate(run.params.iouThrs)}
    values = [
        p[:, :, :, area["all"], -1],
        p[level[0.5], :, :, area["all"], -1],
        p[level[0.75], :, :, area["all"], -1],
        *(p[:, :, :, area[size], -1] for size in ("small", "medium", "large")),
        *(r[:, :, area["all"], limit] for limit in range(3)),
        *(r[:, :, area[size], -1] for size in ("small", "medium", "large")),
    ]
    names = [name if name != "AR100" else f"AR{largest}" for name in STATS]
    return {name: _mean(value) for name, value in zip(names, values, strict=True)}


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    measured = values[values > -1]  # pycocotools marks "no ground truth" by -1
    return float(np.mean(measured)) if measured.size else None


def _per_class(
    run: COCOeval,
    table: Mapping[int, CategoryLike],
    chosen: Sequence[int],
    truth: Mapping[str, Any],
    rows: Predictions,
) -> tuple[ClassAP, ...]:
    precision = run.eval["precision"][:, :, :, 0, -1]  # [iou, recall, class]
    counted = np.array([a["category_id"] for a in truth["annotations"]], dtype=np.int64)
    return tuple(
        ClassAP(
            category_id=category_id,
            name=table[category_id].name,
            group=table[category_id].group,
            ap=_mean(precision[:, :, i]),
            ap50=_mean(precision[0, :, i]),
            ground_truth=int((counted == category_id).sum()),
            predictions=int((rows.category_ids == category_id).sum()),
        )
        for i, category_id in enumerate(chosen)
    )


def _own_groups(classes: Sequence[ClassAP]) -> dict[str, list[int]]:
    names = sorted({row.group for row in classes if row.group is not None})
    return {name: [row.category_id for row in classes if row.group == name] for name in names}


def _group_means(
    classes: Sequence[ClassAP], groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float | int | None]]:
    result: dict[str, dict[str, float | int | None]] = {}
    for name, ids in groups.items():
        members = [row for row in classes if row.category_id in set(ids) and row.ap is not None]
        result[name] = {
            "AP": float(np.mean([row.ap for row in members])) if members else None,
            "AP50": float(np.mean([row.ap50 for row in members])) if members else None,
            "classes": len(members),
        }
    return result
