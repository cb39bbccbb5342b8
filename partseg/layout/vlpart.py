"""Pascal-Part as VLPart's converters write it, so that published numbers can be computed on the same file.

Quirks of ``tools/pascal_part_mat2json.py`` and ``tools/pascal_part_one_json.py`` (VLPart): annotation ids
start at 0; width and height are max - min, one pixel less than the mask; the area is that of the box;
objects are left out, and with them every image that has no part; image ids are the digits of the VOC name;
base categories are numbered anew. None of this is stored: the layout holds true values.
"""

from __future__ import annotations

from typing import Any

import orjson

from partseg.errors import LayoutError
from partseg.layout.reader import Dataset, ImageRecord


def to_vlpart(
    dataset: Dataset, split: str, *, base_only: bool = False, single_object: bool = False
) -> dict[str, Any]:
    """The dictionary of VLPart's JSON file, keys in its order.

    Args:
        dataset: Pascal-Part in the common layout.
        split: name of the split.
        base_only: the 77 base categories (``--only_base``).
        single_object: images with one object only (the ``_one`` files); with ``base_only`` also without any
            novel object. Annotation ids stay those of the file with all images.

    Raises:
        LayoutError: an image name is not of VOC's form.
    """
    parts = [item for item in dataset.categories if item.kind == "part"]
    kept = [item for item in parts if not (base_only and item.group == "novel")]
    new_ids = {item.category_id: new for new, item in enumerate(kept, start=1)}
    categories = [
        {"id": new_ids[item.category_id], "name": item.name}
        | ({"abbr": item.source_name} if item.source_name else {})
        for item in kept
    ]
    objects = {item.category_id: item for item in dataset.categories if item.kind == "object"}
    novel = {item.category_id for item in objects.values() if base_only and item.group == "novel"}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    next_id = 0
    reader = dataset.split(split)
    voc_counts = _voc_object_counts(reader.table("images")["extra"].to_pylist())
    for record, voc_count in zip(reader, voc_counts, strict=True):
        rows = _annotations(record, new_ids, next_id)
        next_id += len(rows)
        if single_object:
            shown = [int(category) for category in record.category_ids if int(category) in objects]
            count = len(shown) if voc_count is None else voc_count
            if count != 1 or not novel.isdisjoint(shown):
                continue
        if rows:
            image_id = rows[0]["image_id"]
            file_name = record.file_name.rpartition("/")[2]
            size = {"height": record.height, "width": record.width}
            images.append({"id": image_id, "file_name": file_name, **size})
            annotations += rows
    return {"categories": categories, "images": images, "annotations": annotations}


def _annotations(record: ImageRecord, new_ids: dict[int, int], first: int) -> list[dict[str, Any]]:
    image_id = _image_id(record.source_key)
    rows: list[dict[str, Any]] = []
    for index, category_id in enumerate(record.category_ids.tolist()):
        rle = record.rles[index]
        if category_id not in new_ids or rle is None:
            continue
        x, y, width, height = record.boxes_xywh[index].tolist()
        rows.append(
            {
                "id": first + len(rows),
                "segmentation": {"size": [record.height, record.width], "counts": rle.decode("ascii")},
                "bbox": [x, y, width - 1, height - 1],
                "category_id": new_ids[category_id],
                "image_id": image_id,
                "iscrowd": 0,
                "area": (width - 1) * (height - 1),
            }
        )
    return rows


def _image_id(name: str) -> int:
    """2008_000652 becomes 2008000652."""
    if not (name[:4].isdigit() and name[4:5] == "_" and name[5:].isdigit()):
        raise LayoutError(
            f"image {name!r} has no VOC name such as 2008_000652", fix="leave out --compat vlpart"
        )
    return int(name[:4] + name[5:])


def _voc_object_counts(extras: list[str | None]) -> list[int | None]:
    """How many objects VOC's own annotation has; None where that was not among the raw files."""
    found = [orjson.loads(extra).get("voc_objects") if extra else None for extra in extras]
    return [None if names is None else len(names) for names in found]
