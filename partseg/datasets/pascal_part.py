"""Pascal-Part: objects and parts of PASCAL VOC 2010, one MATLAB file per image.

Raw folder::

    Annotations_Part/2008_000002.mat
    VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg
    VOCdevkit/VOC2010/ImageSets/Main/{train,val}.txt
    VOCdevkit/VOC2010/Annotations/2008_000002.xml      (optional)

``anno.objects(k)`` has a class, a mask of the whole object and ``parts(j)`` with a name and a mask, all masks
of the size of the image. Raw part names (``lfleg``, ``wheel_2``) are merged into the 93 part categories of
VLPart; left and right, front and back stay separate annotations. Objects of all 20 classes are kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.matlab import load_variable
from partseg.datasets.formats.missing import files_missing
from partseg.datasets.formats.voc_folder import object_names, read_lists
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category, Finding, ImageRow, Record, image_size
from partseg.layout.stacks import masks_to_segments

_MATS = "Annotations_Part"
_VOC = "VOCdevkit/VOC2010"
_IMAGES = f"{_VOC}/JPEGImages"
_LISTS = f"{_VOC}/ImageSets/Main"
_XMLS = f"{_VOC}/Annotations"
_FACTS = "data_manifests/categories/pascal_part.json"
_GET_IT = "unpack the Pascal-Part annotations and VOC2010 trainval into the raw folder"


class Options(BaseModel):
    """Settings of the conversion.

    Attributes:
        splits: image lists to convert.
        allow_missing: a listed image whose files are not there becomes a finding instead of an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    splits: tuple[str, ...] = ("train", "val")
    allow_missing: bool = False


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """The 93 parts (ids 1 to 93, in VLPart's order) and the 20 objects (100 + VOC class index)."""
    facts = category_facts("pascal_part")
    object_ids = {item["name"]: item["category_id"] for item in facts["objects"]}
    parts = [
        Category(
            category_id=item["category_id"],
            name=item["name"],
            kind="part",
            parent_id=object_ids[item["object"]],
            supercategory=item["object"],
            group=item["group"],
            source_id=item["category_id"],
            source_name=item.get("source_name"),
        )
        for item in facts["parts"]
    ]
    objects = [
        Category(
            category_id=item["category_id"],
            name=item["name"],
            kind="object",
            group=item["group"],
            source_id=item["category_id"] - 100,
            source_name=None if item["name"] in item["source_names"] else item["source_names"][0],
        )
        for item in facts["objects"]
    ]
    return (*parts, *objects)


def splits(raw: Raw, options: Options) -> dict[str, list[str]]:
    """Image names of each split, in the order of its list.

    Raises:
        SourceError: folders, lists or (unless ``allow_missing``) listed files are missing.
    """
    return read_lists(
        raw.root,
        _LISTS,
        options.splits,
        {_MATS: ".mat", _IMAGES: ".jpg"},
        complete=not options.allow_missing,
        fix=_GET_IT,
    )


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: as :func:`splits`.
    """
    found = [f"{_LISTS}/{split}.txt" for split in options.splits]
    for names in splits(Raw(root, root), options).values():
        for key in names:
            candidates = (f"{_MATS}/{key}.mat", f"{_IMAGES}/{key}.jpg", f"{_XMLS}/{key}.xml")
            found += [path for path in candidates if (root / path).is_file()]
    return sorted(set(found))


def details(raw: Raw, options: Options) -> dict[str, dict[str, Any]]:
    """Nothing: the raw files say no more."""
    return {}


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Images with their objects and parts.

    Their image-level labels are the classes of their objects. A part whose known name has no category and an
    empty mask become findings.

    Raises:
        SourceError: a file is missing or damaged, holds an unknown class or part name, or a mask does not
            fit the image.
    """
    for key in keys:
        yield _read(raw.root, key, options.allow_missing)


def _read(root: Path, key: str, allow_missing: bool) -> Record:
    mat, image = root / _MATS / f"{key}.mat", root / _IMAGES / f"{key}.jpg"
    needed = (f"{_MATS}/{key}.mat", f"{_IMAGES}/{key}.jpg")
    if dropped := files_missing(root, key, needed, allow_missing, _GET_IT):
        return dropped
    content, xml = image.read_bytes(), root / _XMLS / f"{key}.xml"
    height, width = image_size(content, image)
    objects = _load(mat, key)
    sizes = {mask.shape for item in objects for mask in (item.mask, *(part.mask for part in item.parts))}
    if wrong := sizes - {(height, width)}:
        other = "x".join(str(side) for side in sorted(wrong)[0])
        raise SourceError(
            f"a mask of {key} is {other}, but its image is {height}x{width} (height x width)",
            where=mat,
            fix=f"{image.name} and this file do not belong together: {_GET_IT} again",
        )
    annotations, findings = _annotate(mat, key, objects)
    row = ImageRow(
        file_name=f"{_IMAGES}/{key}.jpg",
        height=height,
        width=width,
        source_key=key,
        sha256=hashlib.sha256(content).digest(),
        pos_category_ids=tuple(dict.fromkeys(row.category_id for row in annotations if row.parent is None)),
        extra={"voc_objects": object_names(xml, _GET_IT)} if xml.is_file() else None,
    )
    return Record(image=row, annotations=annotations, findings=findings)


class _Part(NamedTuple):
    name: str
    mask: NDArray[Any]  # [H, W]


class _Object(NamedTuple):
    name: str
    mask: NDArray[Any]  # [H, W]
    parts: list[_Part]


def _load(mat: Path, key: str) -> list[_Object]:
    try:
        anno = load_variable(mat.read_bytes(), "anno")[0, 0]
        name = str(anno["imname"][0])
        objects = [
            _Object(str(item["class"][0]), _mask(item["mask"]), list(_parts(item["parts"])))
            for item in anno["objects"].ravel()
        ]
    except Exception as error:  # scipy lets through whatever its parser trips over
        raise SourceError(
            f"the annotation is damaged ({type(error).__name__}: {error})",
            where=mat,
            fix="extract the Pascal-Part annotations again",
        ) from error
    if name != key:
        raise SourceError(f"the file holds the annotation of {name}", where=mat, fix=_GET_IT)
    return objects


def _parts(parts: Any) -> Iterator[_Part]:
    for part in parts.ravel():
        yield _Part(str(part["part_name"][0]), _mask(part["mask"]))


def _mask(value: NDArray[Any]) -> NDArray[Any]:
    if value.ndim != 2 or value.dtype.kind not in "buif":
        raise TypeError(f"a mask is an array {value.dtype} with {value.ndim} axes")
    return value


def _annotate(mat: Path, key: str, objects: list[_Object]) -> tuple[list[AnnotationRow], list[Finding]]:
    findings: list[Finding] = []

    def find(reason: str, message: str) -> None:
        findings.append(Finding(source_key=key, reason=reason, message=message))

    whole = [_with_mask(item) for item in objects]
    rows = _Rows([mask for item in whole for mask in (item.mask, *(part.mask for part in item.parts))])
    first = 0
    for item, original in zip(whole, objects, strict=True):
        object_id, part_ids = _object_facts(mat, item.name)
        if item is not original:
            find(
                "object-mask-repaired", f"the mask of a {item.name} is empty; the union of its parts is used"
            )
        parent = rows.add(first, object_id)
        if parent is None:
            find("empty-mask", f"a {item.name} has an empty mask")
        else:
            for number, (part_name, _) in enumerate(item.parts, start=first + 1):
                part_id = _part_id(mat, item.name, part_name, part_ids)
                if part_id is None:
                    find("part-without-category", f"{item.name} part {part_name} belongs to no part category")
                elif rows.add(number, part_id, parent, part_name) is None:
                    find("empty-mask", f"{item.name} part {part_name} has an empty mask")
        first += 1 + len(item.parts)
    return rows.rows, findings


def _with_mask(item: _Object) -> _Object:
    if not item.parts or item.mask.any():
        return item
    return item._replace(mask=np.logical_or.reduce([part.mask for part in item.parts]))


class _Rows:
    """Annotations of an image with the given masks."""

    def __init__(self, masks: Sequence[NDArray[Any]]) -> None:
        segments = masks_to_segments(masks)
        values = (
            segments.rles,
            segments.areas.astype(float).tolist(),
            segments.boxes_xywh.astype(float).tolist(),
        )
        self._segments = dict(zip(segments.labels.tolist(), zip(*values, strict=True), strict=True))
        self.rows: list[AnnotationRow] = []

    def add(
        self, mask: int, category_id: int, parent: int | None = None, part_name: str | None = None
    ) -> int | None:
        """The new row's position; None, and no row, where the mask is empty."""
        if mask not in self._segments:
            return None
        rle, area, box = self._segments[mask]
        self.rows.append(
            AnnotationRow(
                category_id=category_id,
                bbox_xywh=tuple(box),
                area=area,
                rle=rle,
                parent=parent,
                extra=None if part_name is None else {"part_name": part_name},
            )
        )
        return len(self.rows) - 1


@cache
def _objects() -> dict[str, tuple[int, dict[str, int | None]]]:
    """For each raw class name its id and the part category of each raw part name."""
    facts = category_facts("pascal_part")
    part_ids = {item["name"]: item["category_id"] for item in facts["parts"]}
    return {
        source_name: (
            item["category_id"],
            {
                raw: None if merged is None else part_ids[f"{item['name']}:{merged}"]
                for raw, merged in item["raw_parts"].items()
            },
        )
        for item in facts["objects"]
        for source_name in item["source_names"]
    }


def _object_facts(mat: Path, name: str) -> tuple[int, dict[str, int | None]]:
    found = _objects().get(name)
    if found is None:
        raise SourceError(
            f"unknown object class {name!r}",
            where=mat,
            fix=f"repair the file, or add the name to source_names in {_FACTS}",
        )
    return found


def _part_id(mat: Path, object_name: str, name: str, part_ids: dict[str, int | None]) -> int | None:
    family = name if name in part_ids else re.sub(r"_\d+$", "_*", name)
    if family not in part_ids:
        raise SourceError(
            f"unknown part name {name!r} of a {object_name}",
            where=mat,
            fix=f"repair the file, or add the name to raw_parts of {object_name} in {_FACTS}",
        )
    return part_ids[family]
