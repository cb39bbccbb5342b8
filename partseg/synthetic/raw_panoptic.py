"""A made-up COCO panoptic folder: JSON, and PNG maps whose colours are segment ids.

Things are the eleven classes of the made-up world; stuff is the sky and the ground.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.synthetic.raw_coco import (
    HIGHEST_IMAGE,
    LICENCES,
    SHAPES,
    SPLITS,
    category_id,
    image_record,
    info,
)
from partseg.synthetic.scenes import PANOPTIC, jpeg, mask_bbox, numbers, png, scene_series, write, write_json
from partseg.synthetic.world import Mask, Scene

_SKY, _GRASS, _DIRT = 187, 193, 194
# id, name, supercategory, thing, colour in COCO's own table; some that the pictures never show as well
_CATEGORIES = (
    (1, "person", "person", 1, (220, 20, 60)),
    (2, "bicycle", "vehicle", 1, (119, 11, 32)),
    (3, "car", "vehicle", 1, (0, 0, 142)),
    (4, "motorcycle", "vehicle", 1, (0, 0, 230)),
    (5, "airplane", "vehicle", 1, (106, 0, 228)),
    (6, "bus", "vehicle", 1, (0, 60, 100)),
    (16, "bird", "animal", 1, (165, 42, 42)),
    (17, "cat", "animal", 1, (255, 77, 255)),
    (18, "dog", "animal", 1, (0, 226, 252)),
    (19, "horse", "animal", 1, (182, 182, 255)),
    (20, "sheep", "animal", 1, (0, 82, 0)),
    (21, "cow", "animal", 1, (120, 166, 157)),
    (184, "tree-merged", "plant", 0, (107, 142, 35)),
    (_SKY, "sky-other-merged", "sky", 0, (70, 130, 180)),
    (_GRASS, "grass-merged", "ground", 0, (152, 251, 152)),
    (_DIRT, "dirt-merged", "ground", 0, (208, 229, 228)),
)


def write_coco_panoptic(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """A COCO folder: images, ``annotations/panoptic_<split>.json`` and a folder of maps beside it.

    Every second companion is a crowd. The two columns on the right are void (0).

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
    """
    for number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
        ids = numbers(PANOPTIC, number, seed=seed, count=count, below=HIGHEST_IMAGE)
        images, annotations = [], []
        series = scene_series(PANOPTIC, number, seed=seed, count=count, shapes=SHAPES, size=size)
        for index, (image_id, (scene, random)) in enumerate(zip(ids, series, strict=True)):
            name = f"{image_id:012d}"
            write(root / split / f"{name}.jpg", jpeg(scene.image))
            image = image_record(image_id, f"{split}/{name}.jpg", scene.image.shape)
            images.append({"file_name": f"{name}.jpg", **image})
            segments = _segments(scene, crowd=index % 2 == 1)
            colours = [int(value) + 1 for value in random.choice(2**24 - 1, len(segments), replace=False)]
            ids_map = np.zeros(scene.image.shape[:2], np.uint32)
            for colour, (mask, _, _) in zip(colours, segments, strict=True):
                ids_map[mask] = colour
            write(root / "annotations" / f"panoptic_{split}" / f"{name}.png", png(_rgb(ids_map)))
            rows = [
                {
                    "id": colour,
                    "category_id": category,
                    "area": int(mask.sum()),
                    "bbox": mask_bbox(mask),
                    "iscrowd": iscrowd,
                }
                for colour, (mask, category, iscrowd) in zip(colours, segments, strict=True)
            ]
            annotations.append({"segments_info": rows, "file_name": f"{name}.png", "image_id": image_id})
        content = {
            "info": info("COCO 2018 Panoptic Dataset", 2018),
            "licenses": LICENCES,
            "images": images,
            "annotations": annotations[::-1],
            "categories": _categories(),
        }
        write_json(root / "annotations" / f"panoptic_{split}.json", content)


def background(scene: Scene) -> tuple[Mask, Mask]:
    """Pixels bool [H, W] of the sky and of the ground, where no object covers them."""
    free = ~np.logical_or.reduce([item.mask for item in scene.objects])
    above = np.arange(len(free))[:, None] < scene.horizon
    return free & above, free & ~above


def _segments(scene: Scene, *, crowd: bool) -> list[tuple[Mask, int, int]]:
    """Mask, category and ``iscrowd`` of each segment."""
    sky, ground = background(scene)
    found = [
        (item.mask, category_id(item.name), int(crowd and position > 0))
        for position, item in enumerate(scene.objects)
    ]
    found += [(sky, _SKY, 0), (ground, _GRASS if scene.horizon % 2 else _DIRT, 0)]
    void = np.arange(scene.image.shape[1]) >= scene.image.shape[1] - 2
    return [(mask & ~void, category, iscrowd) for mask, category, iscrowd in found if (mask & ~void).any()]


def _rgb(ids: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Ids [H, W] as colours [H, W, 3]: id = R + 256 G + 65536 B."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def _categories() -> list[dict[str, Any]]:
    return [
        {"supercategory": group, "color": list(colour), "isthing": thing, "id": number, "name": name}
        for number, name, group, thing, colour in _CATEGORIES
    ]
