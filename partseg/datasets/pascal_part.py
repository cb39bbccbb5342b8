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
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.io import loadmat

from partseg.datasets.facts import category_facts
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category, Finding, ImageRow, Record, image_size
from partseg.layout.runs import counts_bbox, encode_counts_many, mask_to_counts

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


def categories(options: Options | None = None) -> tuple[Category, ...]:
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


def splits(root: Path, options: Options | None = None) -> dict[str, list[str]]:
    """Image names of each split, in the order of its list.

    Raises:
        SourceError: folders, lists or (unless ``allow_missing``) listed files are missing.
    """
    options = options or Options()
    lists = {split: root / _LISTS / f"{split}.txt" for split in options.splits}
    wanted = [(root / _MATS, "*.mat"), (root / _IMAGES, "*.jpg")]
    missing = [f"{path.relative_to(root)}/{what}" for path, what in wanted if not path.is_dir()]
    missing += [str(path.relative_to(root)) for path in lists.values() if not path.is_file()]
    if missing:
        raise SourceError(f"not a Pascal-Part folder, missing: {', '.join(missing)}", where=root, fix=_GET_IT)
    names = {split: _read_list(path) for split, path in lists.items()}
    if not options.allow_missing:
        _check_complete(root, names)
    return names


def files(root: Path, options: Options | None = None) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: as :func:`splits`.
    """
    options = options or Options()
    found = [f"{_LISTS}/{split}.txt" for split in options.splits]
    for names in splits(root, options).values():
        for key in names:
            candidates = (f"{_MATS}/{key}.mat", f"{_IMAGES}/{key}.jpg", f"{_XMLS}/{key}.xml")
            found += [path for path in candidates if (root / path).is_file()]
    return sorted(set(found))


def read(root: Path, key: str, options: Options | None = None) -> Record:
    """The image ``key`` with its objects and parts.

    Its image-level labels are the classes of its objects. A part whose known name has no category and an
    empty mask become findings.

    Raises:
        SourceError: a file is missing or damaged, holds an unknown class or part name, or a mask does not
            fit the image.
    """
    options = options or Options()
    mat, image = root / _MATS / f"{key}.mat", root / _IMAGES / f"{key}.jpg"
    missing = [str(path.relative_to(root)) for path in (mat, image) if not path.is_file()]
    if missing:
        what = f"missing: {', '.join(missing)}"
        if not options.allow_missing:
            raise SourceError(what, where=root, fix=_GET_IT)
        return _dropped(key, "files-missing", what)
    content = image.read_bytes()
    height, width = image_size(content, image)
    objects = _load(mat, key)
    sizes = {mask.shape for _, mask, parts in objects for mask in (mask, *(part for _, part in parts))}
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
        extra=_voc_objects(root / _XMLS / f"{key}.xml"),
    )
    return Record(image=row, annotations=tuple(annotations), findings=tuple(findings))


_Mask = NDArray[np.uint8]
_Part = tuple[str, _Mask]
_Object = tuple[str, _Mask, list[_Part]]
# category, run-lengths, position of the parent, raw part name
_Found = tuple[int, NDArray[np.int64], int | None, str | None]


def _load(mat: Path, key: str) -> list[_Object]:
    try:
        anno = loadmat(mat, variable_names=["anno"])["anno"][0, 0]
        name = str(anno["imname"][0])
        objects = [
            (str(item["class"][0]), item["mask"], list(_parts(item["parts"])))
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
        yield str(part["part_name"][0]), part["mask"]


def _annotate(mat: Path, key: str, objects: list[_Object]) -> tuple[list[AnnotationRow], list[Finding]]:
    found: list[_Found] = []
    findings: list[Finding] = []

    def find(reason: str, message: str) -> None:
        findings.append(Finding(source_key=key, reason=reason, message=message))

    for name, mask, parts in objects:
        object_id, part_ids = _object_facts(mat, name)
        if not mask.any() and parts:
            find("object-mask-repaired", f"the mask of a {name} is empty; the union of its parts is used")
            mask = np.logical_or.reduce([part for _, part in parts])
        counts = mask_to_counts(mask)
        if len(counts) < 2:
            find("empty-mask", f"a {name} has an empty mask")
            continue
        parent = len(found)
        found.append((object_id, counts, None, None))
        for part_name, part_mask in parts:
            part_id = _part_id(mat, name, part_name, part_ids)
            if part_id is None:
                find("part-without-category", f"{name} part {part_name} belongs to no part category")
                continue
            counts = mask_to_counts(part_mask)
            if len(counts) < 2:
                find("empty-mask", f"{name} part {part_name} has an empty mask")
                continue
            found.append((part_id, counts, parent, part_name))
    return _rows(found, objects[0][1].shape[0] if objects else 0), findings


def _rows(found: list[_Found], height: int) -> list[AnnotationRow]:
    rles = encode_counts_many([counts for _, counts, _, _ in found])
    rows = []
    for (category_id, counts, parent, part_name), rle in zip(found, rles, strict=True):
        x, y, w, h = counts_bbox(counts, height)
        rows.append(
            AnnotationRow(
                category_id=category_id,
                bbox_xywh=(float(x), float(y), float(w), float(h)),
                area=float(counts[1::2].sum()),
                rle=rle,
                parent=parent,
                extra=None if part_name is None else {"part_name": part_name},
            )
        )
    return rows


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


def _voc_objects(xml: Path) -> dict[str, Any] | None:
    """Names of all objects that VOC itself annotates, where its XML files are present."""
    if not xml.is_file():
        return None
    try:
        tree = ElementTree.parse(xml)
    except ElementTree.ParseError as error:
        raise SourceError(f"the annotation is damaged ({error})", where=xml, fix=_GET_IT) from error
    return {"voc_objects": [item.findtext("name", "") for item in tree.getroot().iter("object")]}


def _read_list(path: Path) -> list[str]:
    names = path.read_text(encoding="utf-8", errors="replace").split()
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SourceError(f"{repeated[0]} is listed twice", where=path, fix="repair the list")
    return names


def _check_complete(root: Path, names: dict[str, list[str]]) -> None:
    for folder, suffix in ((_MATS, ".mat"), (_IMAGES, ".jpg")):
        present = {path.name for path in (root / folder).iterdir()}
        missing = [key + suffix for keys in names.values() for key in keys if key + suffix not in present]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise SourceError(
                f"missing: {', '.join(missing[:3])}{more}",
                where=root / folder,
                fix=f"{_GET_IT}, or set allow_missing to convert what is there",
            )


def _dropped(key: str, reason: str, message: str) -> Record:
    finding = Finding(source_key=key, reason=reason, message=message, image_dropped=True)
    return Record(image=None, findings=(finding,))
