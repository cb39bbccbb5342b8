"""Made-up folders of ImageNet classes, for the sources that choose among ImageNet's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from partseg.synthetic.scenes import SUBSET, jpeg, write
from partseg.synthetic.world import CLASSES, draw_scene

# ImageNet classes that the made-up world can draw; others show whatever comes next
_SHAPES = {
    "n02690373": "aeroplane",
    "n02835271": "bicycle",
    "n03792782": "bicycle",
    "n04487081": "bus",
    "n02701002": "car",
    "n03594945": "car",
    "n03670208": "car",
    "n04285008": "car",
    "n02123045": "cat",
    "n02123159": "cat",
    "n02123394": "cat",
    "n02123597": "cat",
    "n02124075": "cat",
    "n02403003": "cow",
    "n02099601": "dog",
    "n03785016": "motorbike",
    "n02412080": "sheep",
}
_TOO_LARGE = 1008  # px; the selections leave out what is wider or taller than 1000


def write_imagenet_subset(
    root: Path, *, seed: int, per_class: int, size: int, wnids: Sequence[str], large: int
) -> None:
    """Class folders ``<wnid>/<wnid>_<n>.JPEG``; the first images of the first classes are too large.

    Args:
        root: created where it does not exist.
        seed: any non-negative integer.
        per_class: images in each folder.
        size: height and width of what is not too large, pixels.
        wnids: the folders.
        large: in so many folders the first image is 1008 pixels wide, or high in every second of them.
    """
    for number, wnid in enumerate(sorted(wnids)):
        shape = _SHAPES.get(wnid, CLASSES[number % len(CLASSES)])
        for index in range(per_class):
            random = np.random.default_rng([SUBSET, seed, number, index])
            image = draw_scene(shape, random, size=size).image
            if number < large and index == 0:
                sides = (_TOO_LARGE, size) if number % 2 == 0 else (size, _TOO_LARGE)
                image = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.NEAREST))
            write(root / wnid / f"{wnid}_{7 * index + 3}.JPEG", jpeg(image))
