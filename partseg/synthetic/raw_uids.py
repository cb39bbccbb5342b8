"""Made-up folders of Cityscapes Panoptic Parts and PASCAL Panoptic Parts.

Maps are TIFF files of int32 uids: the scene class (``sid``), ``sid * 1000 + iid`` where the instance is
known, and ``(sid * 1000 + iid) * 100 + pid`` where the part is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from partseg.synthetic.raw_panoptic import background
from partseg.synthetic.scenes import (
    CITYSCAPES,
    PASCAL_PP,
    VOC_NUMBERS,
    jpeg,
    png,
    scene_series,
    unnumbered,
    write,
)
from partseg.synthetic.world import Scene

Uids = NDArray[np.int32]

# Cityscapes has no animals: a cat stands for a person and a dog for a rider, their front legs are arms. A bus
# also stands for a truck. Bicycles and motorcycles have no parts there.
_CITYSCAPES_SHAPES = {
    "car": "car",
    "person": "cat",
    "bus": "bus",
    "rider": "dog",
    "truck": "bus",
    "bicycle": "bicycle",
    "motorcycle": "motorbike",
}
_CITYSCAPES_SIDS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "motorcycle": 32,
    "bicycle": 33,
}
_EGO_VEHICLE, _ROAD, _VEGETATION, _SKY = 1, 7, 21, 23
_HUMAN_PIDS = (
    dict.fromkeys(("head", "lear", "rear", "nose", "leye", "muzzle"), 2)
    | dict.fromkeys(("lfleg", "rfleg", "lfpa", "rfpa"), 3)
    | dict.fromkeys(("lbleg", "rbleg", "lbpa", "rbpa"), 4)
    | {"torso": 1, "neck": 1}
)
_VEHICLE_PIDS = {"window": 1, "wheel": 2, "headlight": 3, "fliplate": 4, "rightside": 5, "door": 5}
_CITYSCAPES_PIDS = {
    "person": _HUMAN_PIDS,
    "rider": _HUMAN_PIDS,
    "car": _VEHICLE_PIDS,
    "truck": _VEHICLE_PIDS,
    "bus": _VEHICLE_PIDS,
}
_CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt",)}

_PASCAL_SHAPES = (
    "dog",
    "car",
    "aeroplane",
    "bird",
    "horse",
    "bus",
    "motorbike",
    "cow",
    "bicycle",
    "cat",
    "sheep",
)
_GRASS, _PASCAL_SKY = 53, 84
# raw part names in the order of their pids from 1, as in version 2.0 of PASCAL Panoptic Parts
_PASCAL_PARTS = {
    "aeroplane": "body stern lwing rwing tail",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "bus": "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate",
    "cat": "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail",
    "cow": "head leye reye lear rear muzzle lhorn rhorn torso neck "
    "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg tail",
    "horse": "head leye reye lear rear muzzle lfho rfho lbho rbho torso neck "
    "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg tail",
    "motorbike": "fwheel bwheel handlebar saddle",
}
_PASCAL_PARTS |= {
    "car": _PASCAL_PARTS["bus"],
    "dog": f"{_PASCAL_PARTS['cat']} muzzle",
    "sheep": _PASCAL_PARTS["cow"],
}
# Countable parts have pids of their own in the files: the first one has this pid.
_PASCAL_COUNTABLE = {
    "aeroplane": {"engine": 6, "wheel": 16},
    "bus": {"door": 10, "wheel": 20, "headlight": 30, "window": 40},
    "car": {"door": 10, "wheel": 20, "headlight": 30, "window": 40},
    "motorbike": {"headlight": 5},
}


def write_cityscapes_pp(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """A Cityscapes folder: ``leftImg8bit`` and ``gtFinePanopticParts``, by split and city.

    The ground in the lowest tenth is the ego vehicle, the two columns on the right are unlabelled (0), and
    every second companion is a group: its class is known but not its instances.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels; twice the height.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        shapes, cities = _CITYSCAPES_SHAPES, _CITIES[split]
        series = scene_series(CITYSCAPES, number, seed=seed, count=count, shapes=shapes, size=size, wide=2)
        for index, (scene, _) in enumerate(series):
            city = cities[index % len(cities)]
            name = f"{split}/{city}/{city}_{index:06d}_000019"
            ground = _VEGETATION if scene.horizon % 2 else _ROAD
            uids = _stuff(scene, sky=_SKY, ground=ground)
            _paste_objects(uids, scene, _CITYSCAPES_SIDS, _cityscapes_pid, first=0, group=index % 2 == 1)
            lowest = uids[-(len(uids) // 10) :]
            lowest[lowest == ground] = _EGO_VEHICLE
            uids[:, -2:] = 0
            write(root / "leftImg8bit" / f"{name}_leftImg8bit.png", png(scene.image))
            tiff = _tiff(uids, compression="tiff_deflate")
            write(root / "gtFinePanopticParts" / f"{name}_gtFinePanopticParts.tif", tiff)


def write_pascal_pp(root: Path, *, seed: int, train: int, val: int, size: int) -> None:
    """A PASCAL Panoptic Parts folder: ``JPEGImages`` and ``labels/{training,validation}``.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        train: number of training images.
        val: number of validation images.
        size: width, pixels.
    """
    plan = (("training", 2008, train), ("validation", 2010, val))
    shapes = {name: name for name in _PASCAL_SHAPES}
    for number, (split, year, count) in enumerate(plan):
        series = scene_series(PASCAL_PP, number, seed=seed, count=count, shapes=shapes, size=size)
        for index, (scene, _) in enumerate(series):
            name = f"{year}_{3 * index + 2:06d}"
            uids = _stuff(scene, sky=_PASCAL_SKY, ground=_GRASS)
            _paste_objects(uids, scene, VOC_NUMBERS, _pascal_pid, first=1, group=False)
            uids[:, -2:] = 0
            write(root / "JPEGImages" / f"{name}.jpg", jpeg(scene.image))
            write(root / "labels" / split / f"{name}.tif", _tiff(uids))


def _stuff(scene: Scene, *, sky: int, ground: int) -> Uids:
    uids = np.zeros(scene.image.shape[:2], np.int32)
    for mask, sid in zip(background(scene), (sky, ground), strict=True):
        uids[mask] = sid
    return uids


def _paste_objects(
    uids: Uids,
    scene: Scene,
    sids: Mapping[str, int],
    pid_of: Callable[[str, str], int | None],
    *,
    first: int,
    group: bool,
) -> None:
    """Write objects and their parts into a map; instances of a class count from ``first``."""
    counts: dict[str, int] = {}
    for position, item in enumerate(scene.objects):
        sid = sids[item.name]
        if group and position > 0:
            uids[item.mask] = sid
            continue
        instance = counts[item.name] = counts.get(item.name, first - 1) + 1
        uids[item.mask] = sid * 1000 + instance
        for raw, mask in item.parts:
            pid = pid_of(item.name, raw)
            if pid is not None:
                uids[mask] = (sid * 1000 + instance) * 100 + pid


def _cityscapes_pid(name: str, raw: str) -> int | None:
    return _CITYSCAPES_PIDS.get(name, {}).get(unnumbered(raw))


def _pascal_pid(name: str, raw: str) -> int | None:
    countable = _PASCAL_COUNTABLE.get(name, {})
    plain = unnumbered(raw)
    if plain in countable:
        return countable[plain] + int(raw.rsplit("_", 1)[1]) - 1
    parts = _PASCAL_PARTS[name].split()
    return parts.index(raw) + 1 if raw in parts else None


def _tiff(uids: Uids, compression: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(uids).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()
