"""A made-up PartImageNet folder, in the layout with one folder per ImageNet class.

Its categories are the parts of eleven super-categories, of which four-legged animals, birds, cars, bicycles
and aeroplanes are drawn; a bus is a car there (as a minivan) and a motorbike a bicycle (as a moped).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from partseg.synthetic.outlines import outlines
from partseg.synthetic.raw_coco import polygon_record
from partseg.synthetic.scenes import (
    PARTIMAGENET,
    joined_parts,
    jpeg,
    scene_series,
    shuffled,
    write,
    write_json,
)
from partseg.synthetic.world import DrawnObject, Mask

# ImageNet class and what is drawn for it; no class is in two splits
SHAPES = {
    "train": {
        "n02099601": "dog",
        "n02690373": "aeroplane",
        "n03594945": "car",
        "n01614925": "bird",
        "n02835271": "bicycle",
        "n02412080": "sheep",
        "n03770679": "bus",
    },
    "val": {"n02124075": "cat", "n02701002": "car", "n03785016": "motorbike", "n02403003": "cow"},
    "test": {"n02109525": "dog", "n04285008": "car", "n03792782": "bicycle", "n04552348": "aeroplane"},
}
_NAMES = (
    "Quadruped Head", "Quadruped Body", "Quadruped Foot", "Quadruped Tail",
    "Biped Head", "Biped Body", "Biped Hand", "Biped Foot", "Biped Tail",
    "Fish Head", "Fish Body", "Fish Fin", "Fish Tail",
    "Bird Head", "Bird Body", "Bird Wing", "Bird Foot", "Bird Tail",
    "Snake Head", "Snake Body",
    "Reptile Head", "Reptile Body", "Reptile Foot", "Reptile Tail",
    "Car Body", "Car Tier", "Car Side Mirror",
    "Bicycle Body", "Bicycle Head", "Bicycle Seat", "Bicycle Tier",
    "Boat Body", "Boat Sail",
    "Aeroplane Head", "Aeroplane Body", "Aeroplane Engine", "Aeroplane Wing", "Aeroplane Tail",
    "Bottle Mouth", "Bottle Body",
)  # fmt: skip
_HEAD = ("head", "lear", "rear", "leye", "nose", "muzzle", "lhorn", "rhorn", "beak")
_FOOT = tuple(
    f"{side}{part}"
    for side in ("lf", "rf", "lb", "rb", "l", "r")
    for part in ("leg", "uleg", "lleg", "pa", "ho", "foot")
)
_BODY = ("body", "torso", "neck", "rightside", "window", "door", "headlight", "fliplate")
# the part of the super-category that a raw part belongs to
_PARTS = (
    dict.fromkeys((*_HEAD, "handlebar"), "Head")
    | dict.fromkeys(_FOOT, "Foot")
    | dict.fromkeys(_BODY, "Body")
    | dict.fromkeys(("lwing", "rwing"), "Wing")
    | dict.fromkeys(("wheel", "fwheel", "bwheel"), "Tier")
    | {"tail": "Tail", "engine": "Engine", "saddle": "Seat", "rightmirror": "Side Mirror"}
)
_SUPERCATEGORY = {
    "bird": "Bird",
    "car": "Car",
    "bus": "Car",
    "bicycle": "Bicycle",
    "motorbike": "Bicycle",
    "aeroplane": "Aeroplane",
}


def write_partimagenet(root: Path, *, seed: int, train: int, val: int, test: int, size: int) -> None:
    """A PartImageNet folder: ``<split>/<wnid>/<wnid>_<n>.JPEG`` and ``<split>.json``.

    Annotations are parts alone, with polygons; category ids start at 0. File names lack the folder, as in the
    files that are downloaded.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        size: width, pixels.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val), ("test", test))):
        shapes = SHAPES[split]
        images, annotations = [], []
        series = scene_series(PARTIMAGENET, number, seed=seed, count=count, shapes=shapes, size=size)
        for index, (scene, random) in enumerate(series):
            item = scene.objects[0]
            file_name = f"{item.name}_{10 + 7 * index}.JPEG"
            write(root / split / item.name / file_name, jpeg(scene.image))
            height, width = scene.image.shape[:2]
            images.append({"file_name": file_name, "height": height, "width": width, "id": index})
            annotations += [
                polygon_record(outlines(mask, random))
                | {"iscrowd": 0, "image_id": index, "category_id": _NAMES.index(name)}
                for name, mask in _parts(item, shapes[item.name]).items()
            ]
        content = {
            "images": images,
            "annotations": [
                item | {"id": row}
                for row, item in enumerate(shuffled(annotations, PARTIMAGENET, number, seed=seed))
            ],
            "categories": [
                {"id": row, "name": name, "supercategory": name.split(" ")[0]}
                for row, name in enumerate(_NAMES)
            ],
        }
        write_json(root / f"{split}.json", content)


def _parts(item: DrawnObject, shape: str) -> dict[str, Mask]:
    """Masks by category name; what is left of a bicycle is its body."""
    group = _SUPERCATEGORY.get(shape, "Quadruped")
    parts = joined_parts(item, _PARTS)
    if group == "Bicycle":
        parts["Body"] = item.mask & ~np.logical_or.reduce(list(parts.values()))
    named = {f"{group} {part}": mask for part, mask in parts.items()}
    return {name: mask for name, mask in named.items() if name in _NAMES and mask.any()}
