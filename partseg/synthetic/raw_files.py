"""Writes made-up scenes as the raw files of real datasets, so that the real readers read them.

The same seed gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from partseg.synthetic.scenes import VOC_NUMBERS, jpeg
from partseg.synthetic.world import BASE_CLASSES, CLASSES, Scene, draw_scene

_PASCAL, _IMAGENET = 1, 2  # first word of the seeds, so that the two never show the same scene


def write_pascal_part(
    root: Path,
    *,
    seed: int,
    train: int,
    val: int,
    size: int = 128,
    companions: float = 0.15,
) -> None:
    """A Pascal-Part folder: ``Annotations_Part``, ``VOCdevkit/VOC2010/{JPEGImages,ImageSets/Main}``.

    Classes take turns, so that any number of images is balanced. Training images do not show the novel ones.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: height and width, pixels.
        companions: share of images with a second, smaller object of the same split's classes.
    """
    voc = root / "VOCdevkit" / "VOC2010"
    folders = mats, images, lists = root / "Annotations_Part", voc / "JPEGImages", voc / "ImageSets" / "Main"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    plan = (("train", 2008, train, BASE_CLASSES), ("val", 2010, val, CLASSES))
    for split, year, count, classes in plan:
        names = [f"{year}_{index:06d}" for index in range(1, count + 1)]
        for index, name in enumerate(names):
            random = np.random.default_rng([_PASCAL, seed, year, index])
            second = classes[int(random.integers(len(classes)))] if random.random() < companions else None
            scene = draw_scene(classes[index % len(classes)], random, size=size, companion=second)
            (mats / f"{name}.mat").write_bytes(mat_bytes(name, scene))
            (images / f"{name}.jpg").write_bytes(jpeg(scene.image))
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="ascii")


def write_imagenet_folder(
    root: Path, *, seed: int, per_class: int, classes: Mapping[str, str], size: int = 128
) -> None:
    """A folder of class folders, ``<folder>/<folder>_<n>.JPEG``, one object per image.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        per_class: images in each folder.
        classes: folder name (an ImageNet wnid) to object name, one of ``CLASSES``.
        size: height and width, pixels.
    """
    for folder, name, scene in _folder_scenes(seed, per_class, classes, size):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{name}.JPEG").write_bytes(jpeg(scene.image))


def write_folder_truth(
    root: Path, *, seed: int, per_class: int, classes: Mapping[str, str], size: int = 128
) -> None:
    """The true objects and parts that :func:`write_imagenet_folder` keeps to itself, as a Pascal-Part folder.

    All images are in the split train, under the names of the photos without their suffix.

    Args:
        root: created where it does not exist.
        seed: as given there.
        per_class: as given there.
        classes: as given there.
        size: as given there.
    """
    voc = root / "VOCdevkit" / "VOC2010"
    folders = mats, images, lists = root / "Annotations_Part", voc / "JPEGImages", voc / "ImageSets" / "Main"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    names = []
    for _, name, scene in _folder_scenes(seed, per_class, classes, size):
        (mats / f"{name}.mat").write_bytes(mat_bytes(name, scene))
        (images / f"{name}.jpg").write_bytes(jpeg(scene.image))
        names.append(name)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names), encoding="ascii")


def _folder_scenes(
    seed: int, per_class: int, classes: Mapping[str, str], size: int
) -> Iterator[tuple[str, str, Scene]]:
    """Folder, image name and scene of every photo."""
    for number, (folder, name) in enumerate(sorted(classes.items())):
        for index in range(per_class):
            random = np.random.default_rng([_IMAGENET, seed, number, index])
            yield folder, f"{folder}_{index + 1}", draw_scene(name, random, size=size)


def mat_bytes(name: str, scene: Scene) -> bytes:
    """A Pascal-Part annotation file of image ``name``."""
    from scipy.io import savemat  # slow to import, and those who only want a world's settings come by here

    objects = [
        {
            "class": item.name,
            "class_ind": float(VOC_NUMBERS[item.name]),
            "mask": item.mask.astype(np.uint8),
            "parts": _structs(
                ("part_name", "mask"),
                [{"part_name": part, "mask": mask.astype(np.uint8)} for part, mask in item.parts],
            ),
        }
        for item in scene.objects
    ]
    anno = {"imname": name, "objects": _structs(("class", "class_ind", "mask", "parts"), objects)}
    buffer: Any = io.BytesIO()  # scipy's stubs only know paths
    savemat(buffer, {"anno": _structs(("imname", "objects"), [anno])}, do_compression=True)
    content = bytearray(buffer.getvalue())
    # The first 116 bytes are free text; scipy puts the date there.
    content[:116] = b"MATLAB 5.0 MAT-file, made by partseg".ljust(116)
    return bytes(content)


def _structs(fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    """A MATLAB struct array [1, N]."""
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        for field in fields:
            array[0, index][field] = row[field]
    return array
