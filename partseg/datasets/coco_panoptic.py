"""COCO panoptic: every pixel of an image belongs to one segment, a thing or stuff.

Raw folder::

    annotations/panoptic_{train,val}2017.json
    annotations/panoptic_{train,val}2017/000000000139.png
    {train,val}2017/000000000139.jpg

The id of a pixel is ``R + 256 * G + 65536 * B`` of the PNG, 0 is void; ``segments_info`` of the JSON names
the category of every id. Areas and boxes are the JSON's. Where pixels and JSON disagree, the pixels make the
mask and a finding says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.json_index import MISSING, JsonIndex, index_json
from partseg.datasets.formats.panoptic_json import FIX, ImageReader, is_id
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Category, Record
from partseg.layout.export.panoptic import PANOPTIC_IDS


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`.

    A split's PNG files are in the folder named as its JSON file, its photos in the one named as the split.
    """

    USUAL: ClassVar[Mapping[str, str]] = {
        "train2017": "annotations/panoptic_train2017.json",
        "val2017": "annotations/panoptic_val2017.json",
    }
    splits: tuple[str, ...] = ("train2017", "val2017")


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: a JSON file, or a folder of maps or photos is missing.
    """
    found: list[str] = []
    for split, name in options.names().items():
        folders = [_maps(name)] if options.images == "none" else [_maps(name), split]
        missing = [path for path in (name, *folders) if not (root / path).exists()]
        if missing:
            raise SourceError(f"missing: {', '.join(missing)}", where=root, fix=FIX)
        found.append(name)
        for folder in folders:
            found += [f"{folder}/{path.name}" for path in (root / folder).iterdir() if path.is_file()]
    return sorted(found)


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """The categories of the JSON files; ids are the source's, one higher where those begin at 0.

    Raises:
        SourceError: they differ between the splits, or one is not usable.
    """
    tables = {name: _index(raw, name).value("categories") for name in options.names().values()}
    first = next(iter(tables))
    for name, table in tables.items():
        if table != tables[first]:
            raise SourceError(f"other categories than {first}", where=raw.root / name, fix=FIX)
    return _categories(tables[first], raw.root / first)


def splits(raw: Raw, options: Options) -> Mapping[str, Sequence[str]]:
    """The image ids of each split, in the order of its file; "#7" for the eighth record if it has no id.

    Raises:
        SourceError: an annotation refers to no image.
    """
    found = {}
    for split, name in options.names().items():
        index = _index(raw, name)
        ids = index.integers("images", "id").tolist()
        order, starts = index.groups("annotations", "image_id", "images", "id")
        if starts[-2] < len(order):
            where = index.where("annotations", int(order[starts[-2]]))
            raise SourceError("the annotation belongs to no image of the file", where=where, fix=FIX)
        unusable = {*index.repeated("images", "id").tolist()}
        found[split] = [
            f"#{row}" if value == MISSING or row in unusable else str(value) for row, value in enumerate(ids)
        ]
    return found


def details(raw: Raw, options: Options) -> Mapping[str, Mapping[str, Any]]:
    """Everything at the top of the JSON files except images, annotations and categories."""
    found = {}
    for split, name in options.names().items():
        index = _index(raw, name)
        rest = [key for key in index.keys if key not in ("images", "annotations", "categories")]
        found[split] = {PANOPTIC_IDS: "coco", "top_level": {key: index.value(key) for key in rest}}
    return found


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """The images ``keys`` with their segments in the order of the JSON.

    Raises:
        SourceError: a file is missing or damaged.
    """
    name = options.names()[split]
    index = _index(raw, name)
    known = {item.source_id: item.category_id for item in categories(raw, options)}
    ids = np.array([MISSING if key.startswith("#") else int(key) for key in keys], np.int64)
    rows = index.find("images", "id", ids)
    numbered = [row for row, key in enumerate(keys) if key.startswith("#")]
    rows[numbered] = [int(keys[row][1:]) for row in numbered]
    order, starts = index.groups("annotations", "image_id", "images", "id")
    groups = [order[starts[row] : starts[row + 1]].tolist() for row in rows.tolist()]
    parsed = iter(index.parsed("annotations", [row for group in groups for row in group]))
    reader = ImageReader(
        raw.root,
        maps=_maps(name),
        photos=split,
        images=options.images,
        allow_missing=options.allow_missing,
        categories=known,
    )
    for key, image, group in zip(keys, index.parsed("images", rows), groups, strict=True):
        annotations = {row: next(parsed) for row in group}
        yield reader.record(key, image, annotations)


def _index(raw: Raw, name: str) -> JsonIndex:
    return index_json(raw.root / name, raw.scratch, {"images": ["id"], "annotations": ["image_id"]})


def _maps(name: str) -> str:
    return name.removesuffix(".json")


def _categories(table: Any, where: Path) -> tuple[Category, ...]:
    problem = SourceError("the categories are not usable", where=where, fix=FIX)
    if not isinstance(table, list) or not all(isinstance(item, dict) for item in table):
        raise problem
    ids, names = [item.get("id") for item in table], [item.get("name") for item in table]
    if not all(is_id(value) for value in ids) or not all(isinstance(name, str) and name for name in names):
        raise problem
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise SourceError("two categories have the same id or name", where=where, fix=FIX)
    shift = int(0 in ids)
    return tuple(_category(item, shift) for item in table)


def _category(item: dict[str, Any], shift: int) -> Category:
    rest = {key: value for key, value in item.items() if key not in ("id", "name")}
    group, colour = rest.get("supercategory"), rest.get("color")
    if isinstance(group, str):
        del rest["supercategory"]
    value = None
    if isinstance(colour, list) and len(colour) == 3 and all(is_id(c) and c < 256 for c in colour):
        value = int.from_bytes(bytes(rest.pop("color")), "big")
    is_thing = rest.get("isthing") == 1
    if rest.get("isthing") in (0, 1) and type(rest["isthing"]) is int:
        del rest["isthing"]
    elif "isthing" not in rest:
        rest["absent"] = ["isthing"]
    return Category(
        category_id=item["id"] + shift,
        name=item["name"],
        kind="object" if is_thing else "stuff",
        supercategory=group if isinstance(group, str) else None,
        is_thing=is_thing,
        colour=value,
        source_id=item["id"],
        extra=rest or None,
    )
