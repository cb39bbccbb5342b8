"""COCO results JSON: a list of predictions, each with image_id, category_id, score and a mask, a box or both.

LVIS' and PACO's result files are the same, with ``attribute_probs`` where a model tells attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from pycocotools import mask as coco_mask

from partseg.errors import LayoutError
from partseg.evaluation.predictions import PredictionError, Predictions, make
from partseg.layout import Dataset

Ids = Literal["source", "layout", "vlpart"]
"""Whose ids a file has: those of the source, those of the layout, or those of VLPart's Pascal-Part."""

_FIX = "write a list of rows with image_id, category_id, score and segmentation (run-lengths) or bbox"


def default_ids(dataset: Dataset, split: str) -> Ids:
    """The ids that ``partseg data export`` gives the ground truth of this split."""
    return "source" if "annotation_fields" in dataset.split(split).entry.details else "layout"


def read_results(path: Path, dataset: Dataset, split: str, ids: Ids | None = None) -> Predictions:
    """Predictions with the layout's ids.

    Args:
        path: the file.
        dataset: what was predicted.
        split: name of the split.
        ids: whose ids the file has; by default :func:`default_ids`.

    Raises:
        PredictionError: the file is missing or damaged, names an image or category the split does not have,
            or a mask is of another size than its image.
        LayoutError: no such split, or no such ids.
    """
    rows = _read(path)
    if not rows:
        return make([], [], [], [])
    images, categories = id_tables(dataset, split, default_ids(dataset, split) if ids is None else ids)
    try:
        image_ids = _mapped([row["image_id"] for row in rows], images, "image", path)
        category_ids = _mapped([row["category_id"] for row in rows], categories, "category", path)
        scores = [float(row["score"]) for row in rows]
        masks = [row.get("segmentation") for row in rows]
        boxes = [row.get("bbox") for row in rows]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PredictionError(f"a prediction lacks {error}", where=path, fix=_FIX) from error
    sizes = _sizes(dataset, split)
    rles = [
        None if mask is None else _counts(mask, sizes[image_id], path, image_id)
        for mask, image_id in zip(masks, image_ids, strict=True)
    ]
    probs = [row.get("attribute_probs") for row in rows]
    return make(
        image_ids,
        category_ids,
        scores,
        _boxes(boxes, rles, [sizes[image_id] for image_id in image_ids], path),
        rles,
        None if any(item is None for item in probs) else np.array(probs, np.float64),
    )


def id_tables(dataset: Dataset, split: str, ids: Ids) -> tuple[dict[Any, int], dict[Any, int]]:
    """The layout's id for every image id and every category id of a file.

    Raises:
        LayoutError: the images or categories have no such ids.
    """
    reader = dataset.split(split)
    table = reader.batch("images")
    own = table["image_id"].to_pylist()
    if ids == "layout":
        return {i: i for i in own}, {item.category_id: item.category_id for item in dataset.categories}
    if ids == "vlpart":
        keys = table["source_key"].to_pylist()
        if not all(key.replace("_", "").isdigit() for key in keys):
            raise LayoutError(
                "VLPart's image ids are the digits of VOC's names, which these images do not have",
                where=dataset.folder,
                fix="name the ids source or layout",
            )
        parts = [item.category_id for item in dataset.categories if item.kind == "part"]
        return (
            {int(key.replace("_", "")): i for key, i in zip(keys, own, strict=True)},
            dict(enumerate(parts, start=1)),
        )
    numbers = table["source_id"].to_pylist()
    if any(number < 0 for number in numbers):
        raise LayoutError(
            "the images have no ids in their source", where=dataset.folder, fix="name the ids layout"
        )
    return (
        dict(zip(numbers, own, strict=True)),
        {
            item.category_id if item.source_id is None else item.source_id: item.category_id
            for item in dataset.categories
        },
    )


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise PredictionError("there is no prediction file", where=path) from None
    except (orjson.JSONDecodeError, OSError) as error:
        raise PredictionError(f"not readable JSON ({error})", where=path) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise PredictionError("not a list of predictions", where=path, fix=_FIX)
    return content


def _mapped(values: Sequence[Any], table: Mapping[Any, int], what: str, path: Path) -> list[int]:
    unknown = next((value for value in values if value not in table), None)
    if unknown is not None:
        raise PredictionError(
            f"predictions name the {what} id {unknown}, which this split does not have",
            where=path,
            fix="evaluate on the split the predictions were made for, or say whose ids they are "
            "(--ids source, layout or vlpart)",
        )
    return [table[value] for value in values]


def _sizes(dataset: Dataset, split: str) -> dict[int, tuple[int, int]]:
    table = dataset.split(split).batch("images")
    columns = (table[name].to_pylist() for name in ("image_id", "height", "width"))
    return {image_id: (height, width) for image_id, height, width in zip(*columns, strict=True)}


def _counts(mask: Any, size: tuple[int, int], path: Path, image_id: int) -> bytes:
    if not isinstance(mask, dict) or "counts" not in mask or "size" not in mask:
        raise PredictionError("a segmentation is not run-lengths with a size", where=path, fix=_FIX)
    if tuple(mask["size"]) != size:
        raise PredictionError(
            f"a mask of {mask['size']} pixels in image {image_id} of {list(size)} (height, width)",
            where=path,
            fix="write masks in the size of the original image",
        )
    counts = mask["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii", "replace")
    try:
        return bytes(coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"])
    except Exception as error:  # pycocotools raises whatever Cython and numpy do
        raise PredictionError("the run-lengths of a mask cannot be read", where=path, fix=_FIX) from error


def _boxes(
    boxes: Sequence[Any], rles: Sequence[bytes | None], sizes: Sequence[tuple[int, int]], path: Path
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Boxes [N, 4] in pixels; those of the masks where none are stated."""
    result = np.zeros((len(boxes), 4))
    own = [row for row, box in enumerate(boxes) if box is not None]
    from_mask = [row for row, box in enumerate(boxes) if box is None]
    if any(rles[row] is None for row in from_mask):
        raise PredictionError("a prediction has neither a mask nor a box", where=path, fix=_FIX)
    try:
        if own:
            result[own] = np.array([boxes[row] for row in own], np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise PredictionError("a box is not four numbers", where=path, fix=_FIX) from error
    if from_mask:
        coded = [{"size": list(sizes[row]), "counts": rles[row]} for row in from_mask]
        result[from_mask] = coco_mask.toBbox(coded)
    return result
