"""What both halves of PACO share: objects, their parts and attributes in one file per split.

``obj_ann_id`` of a part names its object, that of an object itself. Categories of objects have LVIS' ids;
those of parts are called ``object:part`` and have ids from 2000 on. Attributes are ids in the list
``attributes``, which is kept in the details of the split, as are ``part_categories`` and ``queries``. What is
unknown about an annotation (``unknown_color``, ...), dominant colours and the image's labels of attributes
stay in ``extra``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from partseg.datasets.formats.coco_categories import coco_categories
from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource
from partseg.layout import Category


def paco_source(fix: str, photos: str) -> CocoSource:
    """One half of PACO.

    Args:
        fix: how to get its files.
        photos: begins the path of every photo; file names follow.
    """

    def photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
        return f"{photos}{image['file_name']}"

    return CocoSource(Format(fix=fix, photo=photo, categories=_categories, parent_key="obj_ann_id"))


def _categories(records: Sequence[Mapping[str, Any]], where: object) -> tuple[Category, ...]:
    """Objects, and parts under the object that their name begins with."""
    rows = coco_categories(records, where)
    objects = {row.name: row.category_id for row in rows if ":" not in row.name and row.kind == "object"}
    return tuple(
        replace(row, kind="part", parent_id=objects.get(row.name.split(":")[0])) if ":" in row.name else row
        for row in rows
    )
