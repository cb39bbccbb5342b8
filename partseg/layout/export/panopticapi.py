"""The files that panopticapi's converters write, out of a COCO panoptic dataset in the common layout.

Quirks that are kept: annotation ids begin at 0 and images without segments leave none; a segment's ``id`` is
lost and its other fields stay; boxes of the semantic form are floats, its areas those of the pixels, its
``iscrowd`` always 0; ``things_other`` puts all things into a category 183 that also COCO's own ids know.
One difference: panopticapi stops with an error on Python 3 where a category has two segments in an image.
"""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco_mask

from partseg.errors import LayoutError
from partseg.layout.export.panoptic import image_row, segment_row, source_categories, source_ids, top_level
from partseg.layout.reader import Dataset
from partseg.layout.segments import ImageSegments, Segment, image_segments

_OTHER = 183  # OTHER_CLASS_ID of panoptic2semantic_segmentation.py


def to_detection(dataset: Dataset, split: str, *, things_only: bool = False) -> dict[str, Any]:
    """As ``panoptic2detection_coco_format.py``: every segment a COCO annotation with a compressed mask.

    Args:
        dataset: one with panoptic maps.
        split: name of the split.
        things_only: leave out stuff and its categories.

    Raises:
        LayoutError: no such split, or a segment has no mask.
    """
    id_of, things = source_ids(dataset), _things(dataset)
    items = list(image_segments(dataset.split(split)))
    annotations: list[dict[str, Any]] = []
    for item in sorted(items, key=lambda item: item.row):
        for segment in item.segments:
            if things_only and segment.category_id not in things:
                continue
            row = segment_row(segment, id_of)
            row.pop("id", None)
            row["image_id"] = item.key
            row["segmentation"] = _mask(item, segment)
            row["id"] = len(annotations)
            annotations.append(row)
    categories = source_categories(dataset)
    kept = [row for row in categories if not (things_only and row.get("isthing") != 1)]
    return _content(dataset, split, items, annotations, kept)


def to_semantic(dataset: Dataset, split: str, *, things_other: bool = False) -> dict[str, Any]:
    """As ``panoptic2semantic_segmentation.py --output_json_file``: one annotation per category and image.

    Args:
        dataset: one with panoptic maps.
        split: name of the split.
        things_other: all things become one category "other".

    Raises:
        LayoutError: no such split, or a segment has no mask.
    """
    id_of, things = source_ids(dataset), _things(dataset)
    items = list(image_segments(dataset.split(split)))
    annotations: list[dict[str, Any]] = []
    for item in sorted(items, key=lambda item: item.row):
        masks: dict[int, list[dict[str, Any]]] = {}
        for segment in item.segments:
            other = things_other and segment.category_id in things
            masks.setdefault(_OTHER if other else id_of[segment.category_id], []).append(_mask(item, segment))
        for category, found in masks.items():
            merged = found[0] if len(found) == 1 else coco_mask.merge(found)
            counts = merged["counts"]
            row = {
                "image_id": item.key,
                "category_id": category,
                "segmentation": {
                    "size": [item.height, item.width],
                    "counts": counts.decode() if isinstance(counts, bytes) else counts,
                },
                "area": int(coco_mask.area(merged)),
                "bbox": coco_mask.toBbox(merged).tolist(),
                "iscrowd": 0,
                "id": len(annotations),
            }
            annotations.append(row)
    kept = [row for row in source_categories(dataset) if not (things_other and row.get("isthing") == 1)]
    if things_other:
        kept.append({"id": _OTHER, "name": "other", "supercategory": "other"})
    return _content(dataset, split, items, annotations, kept)


def _content(
    dataset: Dataset,
    split: str,
    items: list[ImageSegments],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        **top_level(dataset, split),
        "images": [image_row(item) for item in items],
        "annotations": annotations,
        "categories": [
            {key: value for key, value in row.items() if key not in ("isthing", "color")}
            for row in categories
        ],
    }


def _things(dataset: Dataset) -> set[int]:
    return {item.category_id for item in dataset.categories if item.is_thing}


def _mask(item: ImageSegments, segment: Segment) -> dict[str, Any]:
    if segment.rle is None:
        raise LayoutError(f"segment {segment.source_id} of image {item.key} has no mask")
    return {"size": [item.height, item.width], "counts": segment.rle.decode("ascii")}
