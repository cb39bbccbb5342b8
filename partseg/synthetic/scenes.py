"""Series of scenes for the writers of raw formats, and how pictures become files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks

from partseg.synthetic.world import SMALLEST, DrawnObject, Mask, Scene, draw_scene

# First word of the seeds, so that no two worlds show the same scenes; 1 and 2 are those of raw_files.
COCO, LVIS, PACO, PARTIMAGENET, PANOPTIC, CITYSCAPES, PASCAL_PP, VOC, SUBSET, COCO_JSON = range(3, 13)

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC's classes in their order."""

VOC_NUMBERS = {name: number for number, name in enumerate(VOC_CLASSES, start=1)}
"""The number that PASCAL VOC, Pascal-Part and PASCAL Panoptic Parts know a class by."""


def scene_series(
    world: int,
    split: int,
    *,
    seed: int,
    count: int,
    shapes: Mapping[str, str],
    size: int,
    wide: float = 4 / 3,
) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Scenes in which classes take turns; every third one has a companion of the next class.

    Args:
        world: one of the constants of this module.
        split: number of the split.
        seed: any non-negative integer.
        count: how many.
        shapes: name of each class in the dataset, and what is drawn for it.
        size: width, pixels.
        wide: width by height.

    Yields:
        A scene whose objects have the dataset's names, and the generator to draw what else the image needs.
    """
    names = list(shapes)
    for index in range(count):
        random = np.random.default_rng([world, seed, split, index])
        shown = [names[index % len(names)]]
        if index % 3 == 1:
            shown.append(names[(index + 1) % len(names)])
        drawn = draw_scene(
            shapes[shown[0]], random, size=size, companion=shapes[shown[1]] if len(shown) > 1 else None
        )
        objects = tuple(replace(item, name=name) for item, name in zip(drawn.objects, shown, strict=False))
        yield _cropped(replace(drawn, objects=objects), round(size / wide), random), random


def _cropped(scene: Scene, height: int, random: np.random.Generator) -> Scene:
    """Rows of a scene around its main object; what is cut off is gone."""
    rows = np.nonzero(scene.objects[0].mask.any(axis=1))[0]
    free = len(scene.image) - height
    middle = (int(rows[0]) + int(rows[-1]) - height) // 2
    top = min(max(middle + int(random.integers(-3, 4)), 0), free)
    window = slice(top, top + height)
    objects = []
    for item in scene.objects:
        parts = tuple((name, mask[window]) for name, mask in item.parts)
        parts = tuple((name, mask) for name, mask in parts if mask.sum() >= SMALLEST)
        if parts:
            objects.append(DrawnObject(name=item.name, mask=item.mask[window], parts=parts))
    horizon = min(max(scene.horizon - top, 0), height)
    return Scene(image=scene.image[window], objects=tuple(objects), horizon=horizon)


def unnumbered(part: str) -> str:
    """The part without its number: ``wheel_2`` is a wheel."""
    return re.sub(r"_\d+$", "", part)


def joined_parts(item: DrawnObject, names: Mapping[str, str]) -> dict[str, Mask]:
    """Masks of an object's parts under a dataset's names; parts of the same name are one mask.

    Args:
        item: the object.
        names: name in the dataset of each unnumbered raw part; parts that are not in it are left out.
    """
    found: dict[str, Mask] = {}
    for raw, mask in item.parts:
        name = names.get(unnumbered(raw))
        if name is not None:
            found[name] = found[name] | mask if name in found else mask
    return found


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A picture uint8 [H, W, 3] as JPEG."""
    return _encoded(image, "JPEG", quality=93, subsampling=0)


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture uint8 [H, W, 3] as PNG."""
    return _encoded(image, "PNG")


def _encoded(image: NDArray[Any], form: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **settings)
    return buffer.getvalue()


def compressed(mask: Mask) -> dict[str, Any]:
    """A mask bool [H, W] as COCO's compressed run lengths, ready for JSON."""
    found = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def uncompressed(mask: Mask) -> dict[str, Any]:
    """A mask bool [H, W] as COCO writes crowds: lengths of runs down the columns, starting with outside."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"counts": counts.tolist(), "size": list(mask.shape)}


def mask_bbox(mask: Mask) -> list[int]:
    """Box x, y, w, h of a mask, its last row and column included."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def numbers(world: int, split: int, *, seed: int, count: int, below: int) -> list[int]:
    """Distinct ids from 1 in no order, as real files have them."""
    random = np.random.default_rng([world, seed, split])
    return [int(value) + 1 for value in random.choice(below - 1, count, replace=False)]


def shuffled(items: list[Any], world: int, split: int, *, seed: int) -> list[Any]:
    """The items in an order that has nothing to do with their image, as in COCO's files."""
    order = np.random.default_rng([world, seed, split, 0, 1]).permutation(len(items))
    return [items[index] for index in order]


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write one line of JSON, as the real files are."""
    write(path, orjson.dumps(content))
