"""A made-up LVIS v1 folder.

All eleven classes of the made-up world are LVIS categories, some of them under another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partseg.synthetic.outlines import outlines
from partseg.synthetic.raw_coco import HIGHEST_IMAGE, LICENCES, SPLITS, image_record, info, polygon_record
from partseg.synthetic.scenes import LVIS, jpeg, numbers, scene_series, shuffled, write, write_json

# LVIS' name of each class, and what is drawn for it
SHAPES = {
    "cat": "cat",
    "car_(automobile)": "car",
    "cow": "cow",
    "bicycle": "bicycle",
    "dog": "dog",
    "bus_(vehicle)": "bus",
    "bird": "bird",
    "airplane": "aeroplane",
    "horse": "horse",
    "motorcycle": "motorbike",
    "sheep": "sheep",
}
# id, name, synset, frequency, images and instances in the training set, synonyms: LVIS' own, with some that
# the pictures never show
CATEGORIES = (
    (1, "aerosol_can", "aerosol.n.02", "c", 64, 109, ("aerosol_can", "spray_can")),
    (3, "airplane", "airplane.n.01", "f", 1911, 3720, ("airplane", "aeroplane")),
    (80, "cow", "beef.n.01", "f", 1420, 8085, ("cow",)),
    (94, "bicycle", "bicycle.n.01", "f", 1852, 4566, ("bicycle", "bike_(bicycle)")),
    (99, "bird", "bird.n.01", "f", 1821, 11557, ("bird",)),
    (
        173,
        "bus_(vehicle)",
        "bus.n.01",
        "f",
        1808,
        3281,
        ("bus_(vehicle)", "autobus", "charabanc", "double-decker", "motorbus", "motorcoach"),
    ),
    (
        207,
        "car_(automobile)",
        "car.n.01",
        "f",
        1926,
        10528,
        ("car_(automobile)", "auto_(automobile)", "automobile"),
    ),
    (225, "cat", "cat.n.01", "f", 1918, 2387, ("cat",)),
    (378, "dog", "dog.n.01", "f", 1938, 2684, ("dog",)),
    (569, "horse", "horse.n.01", "f", 1904, 4744, ("horse",)),
    (703, "motorcycle", "motorcycle.n.01", "f", 1720, 5247, ("motorcycle",)),
    (943, "sheep", "sheep.n.01", "f", 951, 13304, ("sheep",)),
)
_IDS = {name: number for number, name, *_ in CATEGORIES}


def write_lvis(root: Path, *, seed: int, train: int, val: int, size: int, minival: bool = False) -> None:
    """An LVIS v1 folder: COCO's ``train2017``, ``val2017``, and ``annotations/lvis_v1_{train,val}.json``.

    Images have no file name, only a URL; those of val lie in both of COCO's folders. Each image lists
    categories that were looked for and are absent, and some of which not every instance is annotated.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
        minival: also write the file of the images of val that lie in ``val2017``, with their file names.
    """
    first = 1
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        ids = numbers(LVIS, number, seed=seed, count=count, below=HIGHEST_IMAGE)
        images, annotations = [], []
        series = scene_series(LVIS, number, seed=seed, count=count, shapes=SHAPES, size=size)
        for index, (image_id, (scene, random)) in enumerate(zip(ids, series, strict=True)):
            path = f"{SPLITS[number * (index % 2)]}/{image_id:012d}.jpg"
            write(root / path, jpeg(scene.image))
            shown = [_IDS[item.name] for item in scene.objects]
            absent = [category for category in _IDS.values() if category not in shown]
            images.append(
                image_record(image_id, path, scene.image.shape)
                | {
                    "neg_category_ids": [int(item) for item in random.choice(absent, 3, replace=False)],
                    "not_exhaustive_category_ids": shown[1:],
                }
            )
            annotations += [
                {"category_id": _IDS[item.name], "image_id": image_id}
                | polygon_record(outlines(item.mask, random))
                for item in scene.objects
            ]
        annotations = [
            {"id": first + row} | item
            for row, item in enumerate(shuffled(annotations, LVIS, number, seed=seed))
        ]
        first += len(annotations)
        content = {
            "info": info("LVIS v1.0", 2020),
            "annotations": annotations,
            "images": images,
            "licenses": LICENCES,
            "categories": _categories(),
        }
        write_json(root / "annotations" / f"lvis_v1_{split}.json", content)
        if minival and split == "val":
            write_json(root / "annotations" / "lvis_v1_minival_inserted_image_name.json", _minival(content))


def _minival(val: Mapping[str, Any]) -> dict[str, Any]:
    """The images of val in COCO's ``val2017``, with what belongs to them."""
    images = [
        image | {"file_name": image["coco_url"].rpartition("/")[2]}
        for image in val["images"]
        if SPLITS[1] in image["coco_url"]
    ]
    ids = {image["id"] for image in images}
    annotations = [item for item in val["annotations"] if item["image_id"] in ids]
    return {**val, "images": images, "annotations": annotations}


def _categories() -> list[dict[str, object]]:
    return [
        {
            "image_count": images,
            "synonyms": list(synonyms),
            "def": f"what is drawn as a {name}",
            "id": number,
            "synset": synset,
            "name": name,
            "frequency": frequency,
            "instance_count": instances,
        }
        for number, name, synset, frequency, images, instances, synonyms in CATEGORIES
    ]
