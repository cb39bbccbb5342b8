"""A made-up COCO 2017 folder with instance annotations.

All eleven classes of the made-up world are COCO categories, three of them under another name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partseg.synthetic.outlines import outlines, polygons_area, polygons_bbox
from partseg.synthetic.scenes import (
    COCO,
    jpeg,
    mask_bbox,
    numbers,
    scene_series,
    shuffled,
    uncompressed,
    write,
    write_json,
)
from partseg.synthetic.world import Mask

# COCO's name of each class, and what is drawn for it
SHAPES = {
    "dog": "dog",
    "sheep": "sheep",
    "car": "car",
    "bird": "bird",
    "bicycle": "bicycle",
    "airplane": "aeroplane",
    "bus": "bus",
    "cat": "cat",
    "cow": "cow",
    "horse": "horse",
    "motorcycle": "motorbike",
}
# id, name and supercategory in COCO's own table; some that the pictures never show as well
CATEGORIES = (
    (1, "person", "person"),
    (2, "bicycle", "vehicle"),
    (3, "car", "vehicle"),
    (4, "motorcycle", "vehicle"),
    (5, "airplane", "vehicle"),
    (6, "bus", "vehicle"),
    (7, "train", "vehicle"),
    (8, "truck", "vehicle"),
    (13, "stop sign", "outdoor"),
    (16, "bird", "animal"),
    (17, "cat", "animal"),
    (18, "dog", "animal"),
    (19, "horse", "animal"),
    (20, "sheep", "animal"),
    (21, "cow", "animal"),
    (22, "elephant", "animal"),
    (62, "chair", "furniture"),
    (90, "toothbrush", "indoor"),
)
LICENCES = [
    {
        "url": "http://creativecommons.org/licenses/by-nc-sa/2.0/",
        "id": 1,
        "name": "Attribution-NonCommercial-ShareAlike License",
    },
    {
        "url": "http://creativecommons.org/licenses/by/2.0/",
        "id": 4,
        "name": "Attribution License",
    },
]
SPLITS = ("train2017", "val2017")
HIGHEST_IMAGE = 581929  # above any image id of COCO 2017
_CROWD_ID = 900100000000  # a crowd's id is this plus the id of its image


def write_coco(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """A COCO folder: ``train2017``, ``val2017`` and ``annotations/instances_<split>.json``.

    Images and annotations are in no order. An object that another one cuts in two has several polygons;
    every second companion is a crowd, with uncompressed run lengths.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
    """
    for number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
        ids = numbers(COCO, number, seed=seed, count=count, below=HIGHEST_IMAGE)
        images, annotations = [], []
        series = scene_series(COCO, number, seed=seed, count=count, shapes=SHAPES, size=size)
        for index, (image_id, (scene, random)) in enumerate(zip(ids, series, strict=True)):
            path = f"{split}/{image_id:012d}.jpg"
            write(root / path, jpeg(scene.image))
            image = image_record(image_id, path, scene.image.shape)
            images.append({"license": image["license"], "file_name": Path(path).name, **image})
            for item in scene.objects:
                shape = (
                    _crowd(item.mask, image_id)
                    if item is not scene.objects[0] and index % 2 == 1
                    else polygon_record(outlines(item.mask, random))
                    | {"iscrowd": 0, "id": int(random.integers(1, 2**31))}
                )
                annotations.append(shape | {"image_id": image_id, "category_id": category_id(item.name)})
        content = {
            "info": info("COCO 2017 Dataset", 2017),
            "licenses": LICENCES,
            "images": images,
            "annotations": shuffled(annotations, COCO, number, seed=seed),
            "categories": [
                {"supercategory": group, "id": number, "name": name} for number, name, group in CATEGORIES
            ],
        }
        write_json(root / "annotations" / f"instances_{split}.json", content)


def category_id(name: str) -> int:
    """COCO's id of a category."""
    return next(number for number, known, _ in CATEGORIES if known == name)


def info(description: str, year: int) -> dict[str, Any]:
    """The ``info`` of a COCO file."""
    return {
        "description": description,
        "url": "http://cocodataset.org",
        "version": "1.0",
        "year": year,
        "contributor": "COCO Consortium",
        "date_created": f"{year}/09/01",
    }


def image_record(image_id: int, path: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What COCO's files say about an image, without its file name."""
    return {
        "coco_url": f"http://images.cocodataset.org/{path}",
        "height": shape[0],
        "width": shape[1],
        "date_captured": f"2013-11-{1 + image_id % 28:02d} {image_id % 24:02d}:34:01",
        "license": LICENCES[image_id % len(LICENCES)]["id"],
        "flickr_url": f"http://farm9.staticflickr.com/8035/{image_id:010d}_z.jpg",
        "id": image_id,
    }


def polygon_record(polygons: list[list[float]]) -> dict[str, Any]:
    """Outline, area and box of an annotation."""
    return {
        "segmentation": polygons,
        "area": polygons_area(polygons),
        "bbox": polygons_bbox(polygons),
    }


def _crowd(mask: Mask, image_id: int) -> dict[str, Any]:
    return {
        "segmentation": uncompressed(mask),
        "area": int(mask.sum()),
        "bbox": mask_bbox(mask),
        "iscrowd": 1,
        "id": _CROWD_ID + image_id,
    }
