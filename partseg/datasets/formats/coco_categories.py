"""The category table of a COCO-like file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from partseg.errors import SourceError
from partseg.layout import Category
from partseg.layout.records import Kind

_TEXTS = ("supercategory", "synset", "frequency", "group")
_KINDS = ("object", "part", "stuff")


def coco_categories(records: Sequence[Mapping[str, Any]], where: object) -> tuple[Category, ...]:
    """The rows for the categories of a file, in its order.

    Ids are the file's, or one more where the file's begin at 0. ``kind`` and ``parent_id``, which partseg's
    own export writes, are understood; without them everything is an object.

    Raises:
        SourceError: a category has no usable id or name, or an id is used twice.
    """
    ids = [record.get("id") for record in records]
    for number, record in zip(ids, records, strict=True):
        if type(number) is not int or not 0 <= number < 2**31 - 1:
            raise _bad(f"a category has the id {number!r:.40}", where)
        if type(record.get("name")) is not str or not record["name"]:
            raise _bad(f"category {number} has no name", where)
    if again := [number for number, count in Counter(ids).items() if count > 1]:
        raise _bad(f"category id {again[0]} is used twice", where)
    shift = 1 if 0 in ids else 0
    names = Counter(record["name"] for record in records)
    objects = {record["id"] for record in records if _kind(record) == "object"}
    return tuple(_category(record, shift, names[record["name"]] > 1, objects) for record in records)


def _kind(record: Mapping[str, Any]) -> Kind:
    kind = record.get("kind")
    if kind in _KINDS:
        return cast(Kind, kind)
    return "object" if record.get("parent_id") is None else "part"


def _category(record: Mapping[str, Any], shift: int, ambiguous: bool, objects: set[int]) -> Category:
    """What the columns cannot state exactly goes to ``extra``."""
    number, name = record["id"], record["name"]
    columns: dict[str, Any] = {key: record[key] for key in _TEXTS if type(record.get(key)) is str}
    synonyms = record.get("synonyms")
    if type(synonyms) is list and synonyms and all(type(item) is str for item in synonyms):
        columns["synonyms"] = tuple(synonyms)
    if type(record.get("parent_id")) is int and record["parent_id"] in objects:
        columns["parent_id"] = record["parent_id"] + shift
    stated = {"id", "name", *columns, *(("kind",) if record.get("kind") in _KINDS else ())}
    extra = {key: value for key, value in record.items() if key not in stated}
    return Category(
        category_id=number + shift,
        name=f"{name} #{number}" if ambiguous else name,
        kind=_kind(record),
        is_thing=_kind(record) != "stuff",
        source_id=number,
        source_name=name if ambiguous else None,
        extra=extra or None,
        **columns,
    )


def _bad(what: str, where: object) -> SourceError:
    return SourceError(what, where=where, fix="repair its 'categories'")
