"""Made-up PACO folders: COCO's images (PACO-LVIS) or frames of videos (PACO-Ego4D).

Three classes of the made-up world are PACO objects: dogs, cars and bicycles. So that more is drawn, cats are
dogs too, buses are cars and motorbikes bicycles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from partseg.synthetic.raw_coco import HIGHEST_IMAGE, SPLITS
from partseg.synthetic.scenes import (
    PACO,
    compressed,
    joined_parts,
    jpeg,
    mask_bbox,
    numbers,
    scene_series,
    shuffled,
    write,
    write_json,
)
from partseg.synthetic.world import DrawnObject, Mask

# the class drawn, written after a slash where it is not the only one that is drawn for the object
SHAPES = {
    "dog": "dog",
    "car_(automobile)": "car",
    "bicycle": "bicycle",
    "dog/cat": "cat",
    "car_(automobile)/bus": "bus",
    "bicycle/motorbike": "motorbike",
}
_EARS, _FEET, _LEGS = ("lear", "rear"), ("lfpa", "rfpa", "lbpa", "rbpa"), ("lfleg", "rfleg", "lbleg", "rbleg")
# PACO's part for each raw part that has one; others belong to the object alone
_DOG = dict.fromkeys(_EARS, "ear") | dict.fromkeys(_FEET, "foot") | dict.fromkeys(_LEGS, "leg")
_PARTS = {
    "dog": _DOG
    | {"torso": "body", "leye": "eye", "head": "head", "neck": "neck", "nose": "nose", "tail": "tail"},
    "car_(automobile)": {
        "rightmirror": "mirror",
        "headlight": "headlight",
        "wheel": "wheel",
        "window": "window",
        "fliplate": "sign",
    },
    "bicycle": {"fwheel": "wheel", "bwheel": "wheel", "saddle": "saddle", "handlebar": "handlebar"},
}
# id, name, frequency, images, instances and synset in paco_lvis_v1_train.json
_OBJECTS = (
    (94, "bicycle", "f", 1763, 4344, "bicycle.n.01"),
    (207, "car_(automobile)", "f", 1820, 9978, "car.n.01"),
    (378, "dog", "f", 1823, 2542, "dog.n.01"),
    (708, "mug", "f", 770, 1695, "mug.n.04"),
)
_OBJECT_PARTS = (
    (2069, "dog:body", "f", 1570, 1921),
    (2097, "car_(automobile):bumper", "f", 1274, 3349),
    (2138, "dog:ear", "f", 1511, 1780),
    (2143, "dog:eye", "f", 1202, 1359),
    (2156, "dog:foot", "f", 1176, 1365),
    (2194, "bicycle:handlebar", "f", 1144, 1826),
    (2195, "dog:head", "f", 1649, 1981),
    (2201, "car_(automobile):headlight", "f", 921, 1866),
    (2256, "dog:leg", "f", 1428, 1713),
    (2282, "car_(automobile):mirror", "f", 1016, 2174),
    (2289, "dog:neck", "f", 1390, 1644),
    (2291, "dog:nose", "f", 1339, 1535),
    (2341, "bicycle:saddle", "f", 963, 1447),
    (2372, "car_(automobile):sign", "c", 94, 99),
    (2405, "dog:tail", "f", 894, 1013),
    (2444, "car_(automobile):wheel", "f", 1300, 3331),
    (2447, "bicycle:wheel", "f", 1547, 3006),
    (2449, "car_(automobile):window", "f", 1253, 2994),
)
_PART_NAMES = (
    (13, "body"), (23, "bumper"), (44, "ear"), (49, "eye"), (61, "foot"), (71, "handlebar"), (72, "head"),
    (75, "headlight"), (94, "leg"), (102, "mirror"), (105, "neck"), (107, "nose"), (133, "saddle"),
    (150, "sign"), (169, "tail"), (192, "wheel"), (193, "window"),
)  # fmt: skip
_ATTRIBUTES = (
    (0, "black"), (2, "blue"), (5, "brown"), (23, "red"), (25, "white"), (29, "other(color)"), (30, "plain"),
    (31, "striped"), (32, "dotted"), (38, "other(pattern_marking)"), (46, "wool"), (49, "metal"),
    (52, "glass"), (54, "other(material)"), (55, "opaque"), (57, "transparent"),
    (58, "other(transparency)"),
)  # fmt: skip
_ATTRIBUTE_KINDS = {
    "color": (0, 30),
    "pattern_marking": (30, 41),
    "material": (41, 55),
    "transparency": (55, 59),
}
_IDS = {name: number for number, name, *_ in (*_OBJECTS, *_OBJECT_PARTS)}


def write_paco_lvis(root: Path, *, seed: int, train: int, val: int, test: int, size: int) -> None:
    """A PACO-LVIS folder: COCO's ``train2017``, ``val2017`` and ``annotations/paco_lvis_v1_<split>.json``.

    File names start with COCO's folder. Objects come before parts, otherwise in no order; ``obj_ann_id`` of a
    part is its object. Some objects have a box alone, written as an empty ``segmentation``, and no parts.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        size: width, pixels.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val), ("test", test))):
        ids = numbers(PACO, number, seed=seed, count=count, below=HIGHEST_IMAGE)
        names = [f"{SPLITS[split == 'test']}/{image_id:012d}.jpg" for image_id in ids]
        content = _split(root, number, ids, names, seed=seed, size=size, ego4d=False)
        write_json(root / "annotations" / f"paco_lvis_v1_{split}.json", content)


def write_paco_ego4d(root: Path, *, seed: int, train: int, val: int, test: int, size: int) -> None:
    """A PACO-Ego4D folder: ``images`` and ``annotations/paco_ego4d_v1_<split>.json``.

    As PACO-LVIS, with file names relative to ``images``, ``instance_id`` and ``blur_level``.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        size: width, pixels.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val), ("test", test)), start=3):
        random = np.random.default_rng([PACO, seed, number, 0, 2])
        names = [f"{random.bytes(16).hex()}_{int(random.integers(1, 10**6)):06d}.jpeg" for _ in range(count)]
        content = _split(root, number, list(range(1, count + 1)), names, seed=seed, size=size, ego4d=True)
        write_json(root / "annotations" / f"paco_ego4d_v1_{split}.json", content)


def _split(
    root: Path, number: int, ids: list[int], names: list[str], *, seed: int, size: int, ego4d: bool
) -> dict[str, Any]:
    images, objects, parts = [], [], []
    series = scene_series(PACO, number, seed=seed, count=len(ids), shapes=SHAPES, size=size)
    following = 1 + 100000 * number
    for image_id, name, (scene, random) in zip(ids, names, series, strict=True):
        write(root / "images" / name if ego4d else root / name, jpeg(scene.image))
        shown = []
        for position, item in enumerate(scene.objects):
            boxed_only = position > 0 and image_id % 2 == 1
            found = _annotations(item, boxed_only, image_id, following, random)
            following += len(found)
            if ego4d:
                found = [row | {"instance_id": following, "blur_level": image_id % 3} for row in found]
            objects.append(found[0])
            parts += found[1:]
            shown.append(int(found[0]["category_id"]))
        images.append(_image(image_id, name, scene.image.shape, shown))
    annotations = shuffled(objects, PACO, number, seed=seed) + shuffled(parts, PACO, number, seed=seed)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [
            *(_category("OBJECT", *row) for row in _OBJECTS),
            *(_category("PART", *row, row[1].split(":")[1]) for row in _OBJECT_PARTS),
        ],
        "part_categories": [{"supercategory": "PART", "id": id_, "name": name} for id_, name in _PART_NAMES],
        "attributes": [{"supercategory": "ATTR", "id": id_, "name": name} for id_, name in _ATTRIBUTES],
        "attr_type_to_attr_idxs": {
            kind: list(range(first, end)) for kind, (first, end) in _ATTRIBUTE_KINDS.items()
        },
    }


def _image(image_id: int, name: str, shape: tuple[int, ...], shown: list[int]) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": name,
        "width": shape[1],
        "height": shape[0],
        "neg_category_ids": [number for number, *_ in _OBJECTS if number not in shown],
        "not_exhaustive_category_ids": sorted(set(shown[1:])),
        "neg_category_ids_attrs": [_ATTRIBUTES[image_id % len(_ATTRIBUTES)][0]],
        "not_exhaustive_category_ids_attrs": [],
        "license": 1 + image_id % 8,
    }


def _annotations(
    item: DrawnObject, boxed_only: bool, image_id: int, first: int, random: np.random.Generator
) -> list[dict[str, Any]]:
    """The object and its parts, ids from ``first``."""
    name = item.name.split("/")[0]
    parts = {} if boxed_only else joined_parts(item, _PARTS[name])
    masks: list[tuple[str, Mask]] = [
        (name, item.mask),
        *((f"{name}:{part}", mask) for part, mask in parts.items()),
    ]
    return [
        {
            "id": first + index,
            "bbox": mask_bbox(mask),
            "area": float(mask.sum()),
            "category_id": _IDS[category],
            "image_id": image_id,
            "segmentation": [] if boxed_only else compressed(mask),
            "attribute_ids": sorted(
                {_ATTRIBUTES[int(random.integers(len(_ATTRIBUTES)))][0] for _ in range(2)}
            ),
            "dom_color_ids": [int(random.integers(30))],
            "obj_ann_id": first,
            "unknown_color": 0,
            "unknown_pattern_marking": 0,
            "unknown_material": int(random.integers(2)),
            "unknown_transparency": 0,
        }
        for index, (category, mask) in enumerate(masks)
    ]


def _category(
    group: str, number: int, name: str, frequency: str, images: int, instances: int, synset: str
) -> dict[str, Any]:
    return {
        "name": name,
        "id": number,
        "image_count": images,
        "instance_count": instances,
        "synset": synset,
        "frequency": frequency,
        "supercategory": group,
    }
