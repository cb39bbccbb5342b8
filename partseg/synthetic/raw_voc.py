"""A made-up PASCAL VOC 2007 folder: boxes in XML.

All eleven classes of the made-up world are VOC classes. VOC marks the head, hands and feet of persons: a dog
stands for a person as well.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from partseg.synthetic.scenes import VOC, VOC_CLASSES, jpeg, mask_bbox, scene_series, write
from partseg.synthetic.world import DrawnObject, Mask

SHAPES = {
    "person": "dog",
    "car": "car",
    "horse": "horse",
    "aeroplane": "aeroplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "bus": "bus",
    "cat": "cat",
    "cow": "cow",
    "dog": "dog",
    "motorbike": "motorbike",
    "sheep": "sheep",
}
_PERSON_PARTS = {
    "head": "head",
    "lfpa": "hand",
    "rfpa": "hand",
    "lbpa": "foot",
    "rbpa": "foot",
}
_POSES = ("Left", "Right", "Unspecified", "Frontal")


def write_voc2007(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """A ``VOCdevkit/VOC2007`` folder: ``JPEGImages``, ``Annotations``, ``ImageSets/Main``.

    Boxes count pixels from 1 and include their last row and column. Every second companion is difficult; what
    the border of the image cuts is truncated.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
    """
    voc = root / "VOCdevkit" / "VOC2007"
    lists: dict[str, list[str]] = {}
    shown: dict[str, dict[str, bool]] = {}  # image, class, difficult instances alone
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        series = scene_series(VOC, number, seed=seed, count=count, shapes=SHAPES, size=size)
        for index, (scene, random) in enumerate(series):
            name = f"{2 * index + 1 + number:06d}"
            lists.setdefault(split, []).append(name)
            write(voc / "JPEGImages" / f"{name}.jpg", jpeg(scene.image))
            tree = _header(name, scene.image.shape[:2])
            for position, item in enumerate(scene.objects):
                difficult = position > 0 and index % 2 == 1
                tree.append(_object(item, difficult, _POSES[int(random.integers(len(_POSES)))]))
                found = shown.setdefault(name, {})
                found[item.name] = found.get(item.name, True) and difficult
            ElementTree.indent(tree, "\t")
            write(voc / "Annotations" / f"{name}.xml", ElementTree.tostring(tree) + b"\n")
    lists["trainval"] = sorted(name for names in lists.values() for name in names)
    for split, names in lists.items():
        main = voc / "ImageSets" / "Main"
        write(main / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())
        for label in VOC_CLASSES:
            rows = [f"{name} {_presence(shown[name].get(label)):2d}\n" for name in names]
            write(main / f"{label}_{split}.txt", "".join(rows).encode())


def _presence(difficult: bool | None) -> int:
    """VOC's mark in the list of a class: 1 shown, 0 shown but difficult, -1 not shown."""
    return -1 if difficult is None else int(not difficult)


def _header(name: str, shape: tuple[int, ...]) -> ElementTree.Element:
    tree = ElementTree.Element("annotation")
    _text(tree, "folder", "VOC2007")
    _text(tree, "filename", f"{name}.jpg")
    source = ElementTree.SubElement(tree, "source")
    _text(source, "database", "The VOC2007 Database")
    _text(source, "annotation", "PASCAL VOC2007")
    _text(source, "image", "flickr")
    _text(source, "flickrid", str(341012865 + int(name)))
    owner = ElementTree.SubElement(tree, "owner")
    _text(owner, "flickrid", "partseg")
    _text(owner, "name", "?")
    size = ElementTree.SubElement(tree, "size")
    for tag, value in (("width", shape[1]), ("height", shape[0]), ("depth", 3)):
        _text(size, tag, str(value))
    _text(tree, "segmented", "0")
    return tree


def _object(item: DrawnObject, difficult: bool, pose: str) -> ElementTree.Element:
    element = ElementTree.Element("object")
    _text(element, "name", item.name)
    _text(element, "pose", pose)
    edges = (item.mask[0], item.mask[-1], item.mask[:, 0], item.mask[:, -1])
    _text(element, "truncated", str(int(any(edge.any() for edge in edges))))
    _text(element, "difficult", str(int(difficult)))
    _box(element, item.mask)
    if item.name == "person":
        for raw, mask in item.parts:
            if raw in _PERSON_PARTS:
                part = ElementTree.SubElement(element, "part")
                _text(part, "name", _PERSON_PARTS[raw])
                _box(part, mask)
    return element


def _box(element: ElementTree.Element, mask: Mask) -> None:
    x, y, width, height = mask_bbox(mask)
    box = ElementTree.SubElement(element, "bndbox")
    for tag, value in (("xmin", x + 1), ("ymin", y + 1), ("xmax", x + width), ("ymax", y + height)):
        _text(box, tag, str(value))


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
