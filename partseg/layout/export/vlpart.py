"""JSON as VLPart's own tools write it, so that published numbers can be computed on the same files.

None of the tools' quirks is stored: the layout holds true values, and they come back here.

- ``pascal_part_mat2json.py``, ``pascal_part_one_json.py``: annotation ids start at 0; width and height are
  max - min, one pixel less than the mask; the area is that of the box; objects are left out, and with them
  every image that has no part; image ids are the digits of the VOC name; base categories are numbered anew.
- ``voc_from_imagenet.py``, ``golden_from_imagenet.py``: image-level labels alone; image ids count those that
  are left out.
- ``partimagenet_format_json.py``: outlines of one point are padded and then listed once more as they were.
- ``partimagenet_supercat_image_info.py``: an image has the label of its first annotation, and comes in the
  place of that annotation.
- ``AnnJsonGenerator``, what the parser finds: boxes of parts, and of objects only where they were found
  themselves; no masks, areas or scores.
"""

from __future__ import annotations

from typing import Any

import orjson

from partseg.errors import LayoutError
from partseg.layout.reader import Dataset
from partseg.layout.records import Category
from partseg.layout.split import ImageRecord

Row = dict[str, Any]


def to_vlpart(
    dataset: Dataset, split: str, *, base_only: bool = False, single_object: bool = False
) -> dict[str, Any]:
    """The dictionary of VLPart's JSON file, keys in its order.

    Args:
        dataset: in the common layout, converted from pascal_part, imagenet_subset, partimagenet or
            partimagenet_supercat; or the result of a parse.
        split: name of the split.
        base_only: Pascal-Part's 77 base categories (``--only_base``).
        single_object: Pascal-Part's images with one object only (the ``_one`` files); with ``base_only`` also
            without any novel object. Annotation ids stay those of the file with all images.

    Raises:
        LayoutError: VLPart has no such file of this dataset.
    """
    source = dataset.manifest.converter.get("name")
    if source == "pascal_part":
        return _pascal_part(dataset, split, base_only, single_object)
    if base_only or single_object:
        raise LayoutError(
            f"VLPart has no files of base categories or single objects of {source}",
            fix="leave out the selection, or --compat vlpart",
        )
    match source:
        case "imagenet_subset":
            return _imagenet_subset(dataset, split)
        case "partimagenet":
            return _partimagenet(dataset, split)
        case "partimagenet_supercat":
            return _partimagenet_supercat(dataset, split)
        case "partseg.parsing.parser":
            return _parsed(dataset, split)
    raise LayoutError(f"VLPart has no tool for {source}", fix="leave out --compat vlpart")


def _pascal_part(dataset: Dataset, split: str, base_only: bool, single_object: bool) -> dict[str, Any]:
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


def _imagenet_subset(dataset: Dataset, split: str) -> dict[str, Any]:
    source_ids = {item.category_id: item.source_id for item in dataset.categories}
    images = []
    for row in dataset.split(split).table("images").to_pylist():
        size = {"width": row["width"], "height": row["height"]}
        labels = [source_ids[label] for label in row["pos_category_ids"]]
        stored = orjson.loads(row["extra"]) if row["extra"] else {}
        images.append(
            {
                "id": row["source_id"],
                "file_name": row["file_name"],
                "pos_category_ids": labels,
                **size,
                **stored,
            }
        )
    categories = [
        {"id": item.source_id, "name": item.source_name or item.name, **(item.extra or {})}
        for item in dataset.categories
    ]
    return {"categories": categories, "images": images, "annotations": []}


def _partimagenet(dataset: Dataset, split: str) -> dict[str, Any]:
    content = _as_source(dataset, split)
    for image in content["images"]:
        image["file_name"] = _with_folder(image["file_name"])
    for annotation in content["annotations"]:
        outlines = annotation.get("segmentation")
        if isinstance(outlines, list):
            annotation["segmentation"] = [item for outline in outlines for item in _padded(outline)]
    return content


def _with_folder(file_name: str) -> str:
    """The class, which the name begins with, as folder."""
    return f"{file_name[:9]}/{file_name}"


def _padded(outline: list[float]) -> list[list[float]]:
    """What becomes of an outline: of one point, two outlines, of which the second is as it was."""
    if len(outline) < 4:
        return [[*outline, 0, 0, *outline[:2]], outline]
    return [[*outline, *outline[:2]]] if len(outline) == 4 else [outline]


def _partimagenet_supercat(dataset: Dataset, split: str) -> dict[str, Any]:
    source_ids = {item.category_id: item.source_id for item in dataset.categories}
    labels = dataset.split(split).table("images")["pos_category_ids"].to_pylist()
    images = [
        {**image, "pos_category_ids": [source_ids[label] for label in found]}
        for image, found in zip(_as_source(dataset, split)["images"], labels, strict=True)
    ]
    categories = [
        {"id": item.source_id, "name": item.source_name or item.name} for item in dataset.categories
    ]
    return {"images": images, "annotations": [], "categories": categories}


def _parsed(dataset: Dataset, split: str) -> dict[str, Any]:
    kept = _parsed_categories(dataset)
    ids = {item.category_id: item.category_id if item.source_id is None else item.source_id for item in kept}
    reader = dataset.split(split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, source_id in zip(reader, reader.table("images")["source_id"].to_pylist(), strict=True):
        image_id = record.image_id if source_id is None else source_id
        size = {"height": record.height, "width": record.width}
        images.append({"file_name": record.file_name, "id": image_id, **size})
        made_up = set(record.parent_rows.tolist())  # objects that only hold their parts together
        for index, category_id in enumerate(record.category_ids.tolist()):
            if category_id in ids and index not in made_up:
                box = record.boxes_xywh[index].tolist()
                row = {"image_id": image_id, "category_id": ids[category_id], "bbox": box}
                annotations.append({**row, "id": len(annotations) + 1})
    categories = [
        {"id": ids[item.category_id], "name": item.name}
        | ({"abbr": item.source_name} if item.source_name else {})
        for item in kept
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _parsed_categories(dataset: Dataset) -> list[Category]:
    """Parts, and objects too if they are numbered together with the parts, as those of PACO are."""
    numbered = [item for item in dataset.categories if item.source_id is not None]
    together = len({item.source_id for item in numbered}) == len(numbered) > 0
    return numbered if together else [item for item in dataset.categories if item.kind == "part"]


def _as_source(dataset: Dataset, split: str) -> dict[str, Any]:
    from partseg.layout.export.coco import to_coco  # which imports this module

    return to_coco(dataset, split, ids="source")
