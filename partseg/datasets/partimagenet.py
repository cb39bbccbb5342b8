"""PartImageNet: parts of animals, vehicles and bottles on ImageNet's photos.

Raw folder (the OOD split, with other classes in every split)::

    {train,val,test}.json
    {train,val,test}/n02099601/n02099601_7.JPEG

File names in the JSON lack the folder of the class. All annotations are parts; categories have the ids 0 to
39, one more here. Their eleven super-categories are the objects 101 to 111: where all parts in an image
belong to one of them, an object is derived that is the union of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pycocotools import mask as coco_mask

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.coco_categories import coco_categories
from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_rows import Annotations
from partseg.datasets.formats.coco_source import CocoSource
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category
from partseg.layout.runs import rle_area, rle_bbox

FIX = "unpack PartImageNet_OOD.zip there"
_OBJECTS = 101  # id of the first object


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`.

    Attributes:
        objects: "union" derives the object of an image from its parts, "none" leaves the parts without one.
    """

    USUAL: ClassVar[Mapping[str, str]] = {split: f"{split}.json" for split in ("train", "val", "test")}
    splits: tuple[str, ...] = ("train", "val", "test")
    objects: Literal["union", "none"] = "union"


def photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
    """Path of a photo: the first nine characters of its name are its class."""
    name = str(image["file_name"])
    return f"{split}/{name}" if "/" in name else f"{split}/{name[:9]}/{name}"


def part_objects(records: Sequence[Mapping[str, Any]], where: object) -> dict[int, tuple[int, str]]:
    """For each category id of a file the place of its super-category, and the name of the part.

    Raises:
        SourceError: neither the name nor the id of a category is one of PartImageNet's.
    """
    coco_categories(records, where)  # that ids and names can be used at all
    facts = category_facts("partimagenet")
    by_name = {f"{part['object']} {part['part']}": part for part in facts["parts"]}
    by_id = {part["id"]: part for part in facts["parts"]}
    found = {}
    for record in records:
        part = by_name.get(record["name"]) or by_id.get(record["id"])
        if part is None:
            what = f"category {record['id']} ({record['name']!r:.40}) is none of PartImageNet's"
            raise SourceError(what, where=where, fix=FIX)
        found[record["id"]] = facts["objects"].index(part["object"]), part["part"]
    return found


def supercategories() -> list[str]:
    """Names of the super-categories; their places in this list are their ids in VLPart's files."""
    return list(category_facts("partimagenet")["objects"])


def _categories(records: Sequence[Mapping[str, Any]], where: object) -> tuple[Category, ...]:
    """The parts, then the objects, which the files do not have."""
    rows, known, names = coco_categories(records, where), part_objects(records, where), supercategories()
    parts = []
    for row, record in zip(rows, records, strict=True):
        place, part = known[record["id"]]
        name = f"{names[place]}:{part}"
        source_name = record["name"] if record["name"] != name else None
        parts.append(
            replace(row, name=name, kind="part", parent_id=_OBJECTS + place, source_name=source_name)
        )
    objects = [
        Category(category_id=_OBJECTS + place, name=name, kind="object") for place, name in enumerate(names)
    ]
    return (*parts, *objects)


def _with_object(
    rows: list[AnnotationRow], size: tuple[int, int], context: Annotations
) -> list[AnnotationRow]:
    """The union of all parts and then the parts, if they are parts of one thing."""
    objects = {context.parents[row.category_id] for row in rows}
    masks = [{"size": list(size), "counts": row.rle} for row in rows if row.rle is not None]
    if len(objects) != 1 or not masks:
        return rows
    rle: bytes = coco_mask.merge(masks)["counts"]
    x, y, w, h = rle_bbox(rle, size[0])
    whole = AnnotationRow(
        category_id=objects.pop(),
        bbox_xywh=(float(x), float(y), float(w), float(h)),
        area=float(rle_area(rle)),
        rle=rle,
    )
    return [whole, *(replace(row, parent=0) for row in rows)]


class _Source(CocoSource):
    """Adds objects where the options say so."""

    def format(self, options: CocoOptions) -> Format:
        """The format, which depends on the options here."""
        derives = isinstance(options, Options) and options.objects == "union"
        return replace(super().format(options), complete=_with_object if derives else None)


_SOURCE = _Source(Format(fix=FIX, photo=photo, categories=_categories))
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
