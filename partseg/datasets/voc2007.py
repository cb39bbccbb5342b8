"""PASCAL VOC detection: boxes of 20 classes, and of the head, hands and feet of some persons.

Raw folder::

    VOCdevkit/VOC2007/Annotations/000001.xml
    VOCdevkit/VOC2007/ImageSets/Main/{train,val,trainval,test}.txt
    VOCdevkit/VOC2007/JPEGImages/000001.jpg

Other releases have the same form; the option ``folder`` names theirs. VOC counts pixels from 1 and includes
the last one: xmin and ymin are x + 1 and y + 1, xmax and ymax are x + width and y + height.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from pydantic import BaseModel, ConfigDict

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.missing import files_missing
from partseg.datasets.formats.voc_folder import fields, read_lists
from partseg.datasets.formats.xml_files import read_xml
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category, Finding, ImageRow, Record, image_size

_FACTS = "data_manifests/categories/voc.json"
_GET_IT = "unpack the VOC archives (trainval, and test if wanted) into the raw folder"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MODELLED = frozenset(("name", "bndbox", "part"))

Box = tuple[float, float, float, float]


class Options(BaseModel):
    """Settings of the conversion.

    Attributes:
        splits: image lists to convert.
        folder: the release, relative to the raw folder.
        allow_missing: a listed image whose files are not there becomes a finding instead of an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    splits: tuple[str, ...] = ("train", "val")
    folder: str = "VOCdevkit/VOC2007"
    allow_missing: bool = False


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """The 20 classes (ids 1 to 20, in VOC's order) and three parts of persons (21 to 23)."""
    facts = category_facts("voc")
    ids = {item["name"]: item["category_id"] for item in facts["objects"]}
    objects = [
        Category(
            category_id=item["category_id"],
            name=item["name"],
            kind="object",
            source_id=item["category_id"],
            source_name=item.get("source_name"),
        )
        for item in facts["objects"]
    ]
    parts = [
        Category(
            category_id=item["category_id"],
            name=item["name"],
            kind="part",
            parent_id=ids[item["object"]],
            supercategory=item["object"],
        )
        for item in facts["parts"]
    ]
    return (*objects, *parts)


def splits(raw: Raw, options: Options) -> dict[str, list[str]]:
    """Image names of each split, in the order of its list.

    Raises:
        SourceError: folders, lists or (unless ``allow_missing``) listed files are missing.
    """
    folder = options.folder
    return read_lists(
        raw.root,
        f"{folder}/ImageSets/Main",
        options.splits,
        {f"{folder}/Annotations": ".xml", f"{folder}/JPEGImages": ".jpg"},
        complete=not options.allow_missing,
        fix=_GET_IT,
    )


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the raw files that a conversion reads, sorted.

    Raises:
        SourceError: as :func:`splits`.
    """
    folder = options.folder
    found = {f"{folder}/ImageSets/Main/{split}.txt" for split in options.splits}
    for names in splits(Raw(root, root), options).values():
        candidates = (
            path
            for key in names
            for path in (f"{folder}/Annotations/{key}.xml", f"{folder}/JPEGImages/{key}.jpg")
        )
        found.update(path for path in candidates if (root / path).is_file())
    return sorted(found)


def details(raw: Raw, options: Options) -> dict[str, dict[str, Any]]:
    """Nothing: the raw files say no more."""
    return {}


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Images with their objects, and the parts of persons.

    The classes of all objects are image-level labels. Difficult objects are marked ``is_ignore``. What else
    VOC says about an object (pose, truncated, difficult, occluded, ...) is in ``extra``, and so are the
    corners of a box that are not whole numbers. An object or part without a sound box becomes a finding.

    Raises:
        SourceError: a file is missing or damaged, or holds an unknown class or part.
    """
    for key in keys:
        yield _read(raw.root, key, options)


def _read(root: Path, key: str, options: Options) -> Record:
    xml = root / options.folder / "Annotations" / f"{key}.xml"
    file_name = f"{options.folder}/JPEGImages/{key}.jpg"
    image = root / file_name
    needed = (f"{options.folder}/Annotations/{key}.xml", file_name)
    if dropped := files_missing(root, key, needed, options.allow_missing, _GET_IT):
        return dropped
    tree = read_xml(xml, _GET_IT)
    if tree.tag != "annotation":
        raise SourceError(f"the annotation is damaged (it begins with {tree.tag})", where=xml, fix=_GET_IT)
    content = image.read_bytes()
    height, width = image_size(content, image)
    reader = _Reader(xml, key, height, width)
    reader.check_header(tree)
    for item in tree.findall("object"):
        reader.add_object(item)
    digits = key.replace("_", "", 1)
    row = ImageRow(
        file_name=file_name,
        height=height,
        width=width,
        source_key=key,
        source_id=int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None,
        sha256=hashlib.sha256(content).digest(),
        pos_category_ids=tuple(dict.fromkeys(row.category_id for row in reader.rows if row.parent is None)),
        extra=fields(tree, frozenset(("filename", "size", "object"))),
    )
    return Record(image=row, annotations=reader.rows, findings=reader.findings)


class _Reader:
    """Collects the annotations of one image.

    Attributes:
        count: objects and parts so far, those left out among them.
    """

    def __init__(self, xml: Path, key: str, height: int, width: int) -> None:
        self.xml, self.key, self.height, self.width = xml, key, height, width
        self.count = 0
        self.rows: list[AnnotationRow] = []
        self.findings: list[Finding] = []

    def check_header(self, tree: Element) -> None:
        """Note where the file does not seem to speak of the image it is named after."""
        name = (tree.findtext("filename") or "").strip()
        if name and Path(name).stem != self.key:
            self._find("other-file-name", f"the annotation names the image {name}")
        stated = tuple((tree.findtext(f"size/{side}") or "").strip() for side in ("height", "width"))
        if all(stated) and stated != (str(self.height), str(self.width)):
            text = f"{stated[0]}x{stated[1]} (height x width), the image has {self.height}x{self.width}"
            self._find("size-repaired", f"the annotation says {text}")

    def add_object(self, item: Element) -> None:
        """Add an object and its parts."""
        name = (item.findtext("name") or "").strip()
        category_id = self._category_id(name, f"object class {name!r}")
        parent = self._add(item, category_id, name, None)
        for part in item.findall("part"):
            part_name = f"{name}:{(part.findtext('name') or '').strip()}"
            part_id = self._category_id(part_name, f"part {part_name!r}")
            if parent is None:
                self.count += 1
                self._find("part-without-object", f"a {part_name} belongs to an object that is left out")
            else:
                self._add(part, part_id, part_name, parent)

    def _add(self, item: Element, category_id: int, name: str, parent: int | None) -> int | None:
        source_row = self.count
        self.count += 1
        texts = [(item.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
        corners = self._corners(texts)
        if corners is None:
            given = ", ".join(f"{corner} {text!r}" for corner, text in zip(_CORNERS, texts, strict=True))
            self._find("bad-box", f"a {name} has no sound box: {given}")
            return None
        x0, y0, x1, y1 = corners
        extra = fields(item, _MODELLED)
        if not all(corner.is_integer() for corner in corners):
            extra["bndbox"] = list(corners)
        self.rows.append(
            AnnotationRow(
                category_id=category_id,
                bbox_xywh=(x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1),
                area=(x1 - x0 + 1) * (y1 - y0 + 1),
                parent=parent,
                is_ignore=extra.get("difficult") == 1,
                source_row=source_row,
                extra=extra,
            )
        )
        return len(self.rows) - 1

    def _corners(self, texts: Sequence[str]) -> Box | None:
        """xmin, ymin, xmax, ymax as the file has them; None unless they bound some of the image."""
        try:
            x0, y0, x1, y1 = (float(text) for text in texts)
        except ValueError:
            return None
        sound = x0 <= x1 and y0 <= y1 and x0 <= self.width and y0 <= self.height and x1 >= 1 and y1 >= 1
        return (x0, y0, x1, y1) if sound and math.isfinite((x1 - x0) * (y1 - y0)) else None

    def _category_id(self, name: str, what: str) -> int:
        found = _ids().get(name)
        if found is None:
            fix = f"repair the file, or add the name to {_FACTS}"
            raise SourceError(f"unknown {what}", where=self.xml, fix=fix)
        return found

    def _find(self, reason: str, message: str) -> None:
        self.findings.append(Finding(source_key=self.key, reason=reason, message=message))


@cache
def _ids() -> dict[str, int]:
    """Category ids by VOC's names; parts as object:part."""
    facts = category_facts("voc")
    return {
        item.get("source_name", item["name"]): item["category_id"]
        for item in (*facts["objects"], *facts["parts"])
    }
