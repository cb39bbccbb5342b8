"""COCO JSON out of the common layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from partseg.files import replacing_file
from partseg.layout.reader import Dataset, ImageRecord
from partseg.layout.records import Category
from partseg.layout.vlpart import to_vlpart

Compat = Literal["vlpart"]


def export(
    dataset: Dataset,
    split: str,
    out: Path,
    *,
    compat: Compat | None = None,
    base_only: bool = False,
    single_object: bool = False,
) -> dict[str, int]:
    """Write one split as COCO JSON.

    Args:
        dataset: any dataset.
        split: name of the split.
        out: the file; an existing one is replaced at once, at the end.
        compat: "vlpart" gives the file that VLPart's own Pascal-Part converter writes, quirks included.
        base_only: leave out the categories of the group "novel".
        single_object: only images with exactly one object.

    Returns:
        Counts: categories, images, annotations.

    Raises:
        LayoutError: no such split, or the dataset does not suit ``compat``.
    """
    build = to_vlpart if compat == "vlpart" else to_coco
    content = build(dataset, split, base_only=base_only, single_object=single_object)
    with replacing_file(out) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream)
    return {name: len(content[name]) for name in ("categories", "images", "annotations")}


def to_coco(
    dataset: Dataset, split: str, *, base_only: bool = False, single_object: bool = False
) -> dict[str, Any]:
    """One split as a COCO dictionary with objects and parts.

    Ids are the layout's, boxes and areas are true values. Beyond COCO's keys, a part has ``parent_id`` and an
    image with image-level labels ``pos_category_ids``. ``base_only`` leaves out novel categories and their
    annotations but keeps every image.
    """
    kept = [item for item in dataset.categories if not (base_only and item.group == "novel")]
    ids = {item.category_id for item in kept}
    objects = {item.category_id for item in dataset.categories if item.kind == "object"}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.split(split):
        if single_object and sum(int(category) in objects for category in record.category_ids) != 1:
            continue
        images.append(_image(record, ids))
        annotations += _annotations(record, ids)
    return {"images": images, "annotations": annotations, "categories": [_category(item) for item in kept]}


def _category(category: Category) -> dict[str, Any]:
    row: dict[str, Any] = {"id": category.category_id, "name": category.name}
    optional = {"supercategory": category.supercategory, "synset": category.synset}
    row.update({key: value for key, value in optional.items() if value is not None})
    if category.parent_id is not None:
        row["parent_id"] = category.parent_id
    return row


def _image(record: ImageRecord, ids: set[int]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": record.image_id,
        "file_name": record.file_name,
        "height": record.height,
        "width": record.width,
    }
    labels = [label for label in record.pos_category_ids.tolist() if label in ids]
    return {**row, "pos_category_ids": labels} if labels else row


def _annotations(record: ImageRecord, ids: set[int]) -> list[dict[str, Any]]:
    rows = []
    for index, category_id in enumerate(record.category_ids.tolist()):
        if category_id not in ids:
            continue
        row: dict[str, Any] = {
            "id": int(record.ann_ids[index]),
            "image_id": record.image_id,
            "category_id": category_id,
            "bbox": record.boxes_xywh[index].tolist(),
            "area": float(record.areas[index]),
            "iscrowd": int(record.is_crowd[index]),
        }
        rle, parent = record.rles[index], int(record.parent_rows[index])
        if rle is not None:
            row["segmentation"] = {"size": [record.height, record.width], "counts": rle.decode("ascii")}
        if parent >= 0:
            row["parent_id"] = int(record.ann_ids[parent])
        if record.is_ignore[index]:
            row["ignore"] = 1
        if record.scores[index] == record.scores[index]:  # not nan
            row["score"] = float(record.scores[index])
        rows.append(row)
    return rows
