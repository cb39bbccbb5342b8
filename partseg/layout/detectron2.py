"""A split as the list of dictionaries that detectron2 trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from partseg.errors import PartsegError
from partseg.layout.reader import Dataset
from partseg.layout.split import Split

__all__ = ["DatasetDicts", "register"]

_XYWH_ABS = 1  # detectron2.structures.BoxMode.XYWH_ABS


class DatasetDicts(Sequence[dict[str, Any]]):
    """The records of a split in detectron2's standard form, each made when it is asked for.

    Pickles only its path and the categories. detectron2 itself need not be installed.

    Beyond the standard keys, the annotation of a part has ``parent``: the position of its object in
    ``annotations``. Masks are polygons where the source has them, else compressed run-lengths, for which
    detectron2 wants ``INPUT.MASK_FORMAT = "bitmask"``.

    Args:
        split: opened with ``image_root``.
        category_ids: categories to keep; ``category_id`` of a dictionary is the position in this list.
    """

    def __init__(self, split: Split, category_ids: Sequence[int]) -> None:
        self.split = split
        self._positions = {category_id: position for position, category_id in enumerate(category_ids)}

    def __len__(self) -> int:
        return len(self.split)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Image ``index`` with its annotations."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        record = self.split[index]
        outlines = self.split.polygons(index)
        kept = [row for row, key in enumerate(record.category_ids.tolist()) if key in self._positions]
        place = {row: position for position, row in enumerate(kept)}
        annotations: list[dict[str, Any]] = []
        for row in kept:
            annotation: dict[str, Any] = {
                "bbox": record.boxes_xywh[row].tolist(),
                "bbox_mode": _XYWH_ABS,
                "category_id": self._positions[int(record.category_ids[row])],
                "iscrowd": int(record.is_crowd[row]),
            }
            rings, rle = outlines[row], record.rles[row]
            if rings and not record.is_crowd[row]:
                annotation["segmentation"] = [ring.tolist() for ring in rings]
            elif rle is not None:
                annotation["segmentation"] = {"size": [record.height, record.width], "counts": rle}
            if (parent := place.get(int(record.parent_rows[row]))) is not None:
                annotation["parent"] = parent
            annotations.append(annotation)
        return {
            "file_name": str(self.split.image_path(index)),
            "height": record.height,
            "width": record.width,
            "image_id": record.image_id,
            "annotations": annotations,
        }


def register(
    name: str, dataset: Dataset, split: str, *, category_ids: Sequence[int] | None = None
) -> DatasetDicts:
    """Add a split to detectron2's catalogues under ``name``; training makes a list of it.

    The metadata hold ``thing_classes``, ``thing_dataset_id_to_contiguous_id`` (from the layout's category
    ids), ``thing_colors`` where all are known, and ``evaluator_type`` "coco".

    Args:
        name: free in detectron2's catalogue.
        dataset: opened with ``image_root``.
        split: name of the split.
        category_ids: categories to keep, in this order; by default all objects and parts of the table.

    Raises:
        PartsegError: detectron2 is not installed.
        LayoutError: no such split.
    """
    try:
        from detectron2.data import (  # type: ignore[import-not-found,unused-ignore]
            DatasetCatalog,
            MetadataCatalog,
        )
    except ImportError as error:
        raise PartsegError(
            f"detectron2 is not installed ({error})",
            fix="install it from its repository, or use DatasetDicts, which does without",
        ) from error
    known = {item.category_id: item for item in dataset.categories}
    if category_ids is None:
        category_ids = [key for key, item in known.items() if item.kind != "stuff"]
    categories = [known[key] for key in category_ids]
    dicts = DatasetDicts(dataset.split(split), category_ids)
    DatasetCatalog.register(name, lambda: list(dicts))
    metadata: dict[str, Any] = {
        "thing_classes": [item.name for item in categories],
        "thing_dataset_id_to_contiguous_id": {key: position for position, key in enumerate(category_ids)},
        "evaluator_type": "coco",
    }
    colours = [item.colour for item in categories if item.colour is not None]
    if len(colours) == len(categories):
        metadata["thing_colors"] = [[value >> 16, value >> 8 & 255, value & 255] for value in colours]
    MetadataCatalog.get(name).set(**metadata)
    return dicts
