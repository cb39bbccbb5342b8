"""COCO, LVIS and PACO JSON out of the common layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from partseg.files import replacing_file
from partseg.layout.export.coco_rows import CocoRows, Ids, Row
from partseg.layout.export.json_out import plain, write_json
from partseg.layout.export.vlpart import to_vlpart
from partseg.layout.reader import Dataset
from partseg.layout.records import Category
from partseg.progress import Progress, Silent

__all__ = ["Compat", "Form", "Ids", "export", "to_coco"]

Compat = Literal["vlpart"]
Form = Literal["coco", "lvis", "paco"]

# What lvis-api and paco's evaluation read from every image, annotation or file. An attribute nobody looked
# for is unknown.
_LVIS_IMAGE = {"neg_category_ids": (), "not_exhaustive_category_ids": ()}
_PACO_IMAGE = {"neg_category_ids_attrs": (), "not_exhaustive_category_ids_attrs": (), "license": 0}
_PACO_ANNOTATION = {
    "dom_color_ids": (),
    "unknown_color": 1,
    "unknown_pattern_marking": 1,
    "unknown_material": 1,
    "unknown_transparency": 1,
}
_COLUMNS: Mapping[Form, tuple[str, ...]] = {
    "coco": (),
    "lvis": tuple(_LVIS_IMAGE),
    "paco": (*_LVIS_IMAGE, "attribute_ids", "obj_ann_id"),
}
# Most images that a rare and a common category of LVIS occurs in (Gupta et al. 2019, section 3).
_RARE, _COMMON = 10, 100


def export(
    dataset: Dataset,
    split: str,
    out: Path,
    *,
    form: Form = "coco",
    ids: Ids | None = None,
    compat: Compat | None = None,
    base_only: bool = False,
    single_object: bool = False,
    report: Progress | None = None,
) -> dict[str, int]:
    """Write one split as JSON, in bounded memory.

    Args:
        dataset: any dataset.
        split: name of the split.
        out: the file; an existing one is replaced at once, at the end.
        form: "lvis" and "paco" add what those formats require and the source did not have.
        ids: "source" takes ids, fields and order from the source, so that a COCO-like file comes out as it
            went in. "layout" takes the layout's ids, and works for every dataset. By default "source" where
            the source was a COCO-like file.
        compat: "vlpart" gives the file that VLPart's own Pascal-Part converter writes, quirks included.
        base_only: leave out the categories of the group "novel".
        single_object: only images with exactly one object.
        report: told how many annotations are written.

    Returns:
        Counts: categories, images, annotations.

    Raises:
        LayoutError: no such split, the dataset does not suit ``compat``, or its source has no unique ids.
    """
    if compat == "vlpart":
        content = to_vlpart(dataset, split, base_only=base_only, single_object=single_object)
        with replacing_file(out) as temporary, temporary.open("w", encoding="utf-8") as stream:
            json.dump(content, stream)
        return {name: len(content[name]) for name in ("categories", "images", "annotations")}
    content = _content(dataset, split, form, ids, base_only, single_object, report or Silent())
    counts = write_json(out, content)
    return {"categories": len(content.get("categories", ())), "images": 0, "annotations": 0, **counts}


def to_coco(
    dataset: Dataset,
    split: str,
    *,
    form: Form = "coco",
    ids: Ids | None = None,
    base_only: bool = False,
    single_object: bool = False,
) -> dict[str, Any]:
    """What :func:`export` writes, as a dictionary.

    With the layout's ids, boxes and areas are true values unless the source states others. Beyond COCO's
    keys, categories have ``kind`` and ``parent_id``, parts the ``parent_id`` of their object, images with
    image-level labels ``pos_category_ids``; so reading the file back restores the dataset.
    """
    return plain(_content(dataset, split, form, ids, base_only, single_object, Silent()))


def _content(
    dataset: Dataset,
    split: str,
    form: Form,
    ids: Ids | None,
    base_only: bool,
    single_object: bool,
    report: Progress,
) -> dict[str, Any]:
    reader = dataset.split(split)
    details = reader.entry.details
    if ids is None:
        ids = "source" if "annotation_fields" in details else "layout"
    kept = [item for item in dataset.categories if not (base_only and item.group == "novel")]
    objects = [item.category_id for item in dataset.categories if item.kind == "object"]
    single = objects if single_object else None
    rows = CocoRows(reader, kept, ids=ids, single=single, always=_COLUMNS[form])
    as_source = ids == "source"
    categories = _source_categories(kept, details, rows) if as_source else [_category(item) for item in kept]
    content = {
        **(details.get("top_level", {}) if as_source else {}),
        "images": rows.image_rows(lambda row, extra: _finish_image(row, extra, form)),
        "annotations": rows.annotation_rows(lambda row, extra: _finish_annotation(row, extra, form), report),
        "categories": categories,
    }
    if form != "coco":
        _finish_categories(categories, kept, rows, form)
        content = _required_top_level(form, kept, details) | content
    return content


def _source_categories(kept: list[Category], details: Mapping[str, Any], rows: CocoRows) -> list[Row]:
    if "categories" in details:
        numbers = set(rows.numbers.values())
        return [dict(row) for row in details["categories"] if row.get("id") in numbers]
    return [_source_category(item) for item in kept if item.source_id is not None]


def _source_category(category: Category) -> Row:
    row: Row = {"id": category.source_id, "name": category.source_name or category.name}
    return {**row, **_stated(category), **(category.extra or {})}


def _category(category: Category) -> Row:
    """With the layout's ids."""
    row: Row = {"id": category.category_id, "name": category.name, "kind": category.kind, **_stated(category)}
    optional = {
        "parent_id": category.parent_id,
        "group": category.group,
        "colour": category.colour,
        "is_thing": None if category.is_thing else False,
    }
    return row | {key: value for key, value in optional.items() if value is not None}


def _stated(category: Category) -> Row:
    optional = {
        "supercategory": category.supercategory,
        "synset": category.synset,
        "frequency": category.frequency,
        "synonyms": list(category.synonyms) or None,
    }
    return {key: value for key, value in optional.items() if value is not None}


def _finish_image(row: Row, extra: Mapping[str, Any], form: Form) -> None:
    if form != "coco":
        _fill(row, extra, _LVIS_IMAGE)
    if form == "lvis" and "coco_url" not in row:
        # detectron2 and mmdetection find LVIS's images by the end of this, after the host
        name = str(row.get("file_name", ""))
        row["coco_url"] = extra.get("coco_url", name if "/" in name else f"./{name}")
    if form == "paco":
        _fill(row, extra, _PACO_IMAGE)


def _finish_annotation(row: Row, extra: Mapping[str, Any], form: Form) -> None:
    if form != "coco":
        row.setdefault("segmentation", [])
    if form == "paco":
        _fill(row, extra, _PACO_ANNOTATION)


def _fill(row: Row, extra: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        if name not in row:
            row[name] = extra.get(name, value)


def _finish_categories(categories: list[Row], kept: list[Category], rows: CocoRows, form: Form) -> None:
    counts = rows.counts()
    by_number = {rows.numbers.get(item.category_id): item for item in kept}
    for row in categories:
        category = by_number[row["id"]]
        images, instances = counts[row["id"]]
        if form == "paco":
            row.setdefault("supercategory", "PART" if category.kind == "part" else "OBJECT")
        else:
            row.setdefault("synonyms", [row["name"]])
            row.setdefault("def", (category.extra or {}).get("def", ""))
        row.setdefault("synset", "")
        row.setdefault("image_count", images)
        row.setdefault("instance_count", instances)
        frequent = "f" if images > _COMMON else "c" if images > _RARE else "r"
        row.setdefault("frequency", frequent)


def _required_top_level(form: Form, kept: list[Category], details: Mapping[str, Any]) -> dict[str, Any]:
    found = details.get("top_level", {})
    required: dict[str, Any] = {}
    if form == "lvis":
        required = {"info": {}, "licenses": []}
    if form == "paco":
        names = dict.fromkeys(item.name.rpartition(":")[2] for item in kept if item.kind == "part")
        required = {
            "attributes": [],
            "attr_type_to_attr_idxs": {},
            "part_categories": [
                {"supercategory": "PART", "id": number, "name": name}
                for number, name in enumerate(names, start=1)
            ],
        }
    return {key: found.get(key, value) for key, value in required.items()}
