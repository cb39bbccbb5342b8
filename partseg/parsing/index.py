"""The base index: one class token per annotated base image.

The index only says which base image resembles a query most. Part masks stay in the dataset, and
dense descriptors are read again when an image is chosen: few base images ever are.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from partseg.errors import LayoutError, StoreError
from partseg.files import write_file
from partseg.layout import Split, rle_to_mask
from partseg.parsing.descriptors import Describer, Features
from partseg.parsing.vit import normalise, resize, short_side_size
from partseg.progress import Progress, Silent

FILE = "index.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseIndex:
    """Class tokens of base images, in the order of their file names.

    Attributes:
        tokens: float32 [B, D].
        image_ids: int64 [B], ids in the base dataset.
    """

    tokens: Tensor
    image_ids: Tensor

    def save(self, folder: Path) -> None:
        """Write the index into a folder; the file appears complete or not at all."""
        tensors = {"image_ids": self.image_ids, "tokens": self.tokens.contiguous()}
        write_file(folder / FILE, save(tensors))

    @staticmethod
    def load(folder: Path) -> BaseIndex:
        """Read an index.

        Raises:
            StoreError: the folder holds no readable index.
        """
        try:
            tensors = load_file(folder / FILE)
            return BaseIndex(tokens=tensors["tokens"], image_ids=tensors["image_ids"])
        except (OSError, SafetensorError, KeyError) as error:
            raise StoreError(f"not a base index ({error})", where=folder / FILE) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An annotated image, ready to hand its parts on.

    Attributes:
        image_id: id in the base dataset.
        features: of the image at the size the describer works at.
        masks: bool [P, H, W] in pixels of the original image.
        category_ids: the parts' categories, P ids.
    """

    image_id: int
    features: Features
    masks: Tensor
    category_ids: tuple[int, ...]


def base_rows(split: Split, object_ids: Collection[int], part_ids: Collection[int]) -> list[int]:
    """Images that can serve as a base: exactly one object is annotated, and it has wanted parts.

    Args:
        split: the base dataset.
        object_ids: categories of whole objects.
        part_ids: categories of parts that may be handed on.

    Returns:
        Row numbers of the split, in the order of the file names.
    """
    objects, parts = np.array(sorted(object_ids)), np.array(sorted(part_ids))
    found = []
    for row in range(len(split)):
        record = split[row]
        one_object = np.isin(record.category_ids, objects).sum() == 1
        if one_object and np.isin(record.category_ids, parts).any():
            found.append((record.file_name, row))
    return [row for _, row in sorted(found)]


def build_index(
    split: Split,
    describer: Describer,
    *,
    object_ids: Collection[int],
    part_ids: Collection[int],
    report: Progress | None = None,
) -> BaseIndex:
    """Class tokens of all base images of a split.

    Images go through the network one by one: a batch would change the last digits of the tokens.

    Raises:
        LayoutError: no image has exactly one object with one of the wanted parts.
    """
    rows = base_rows(split, object_ids, part_ids)
    if not rows:
        raise LayoutError(
            "no image can serve as a base image",
            fix="it takes images of exactly one object with annotated parts",
        )
    report = report or Silent()
    tokens = []
    for done, row in enumerate(rows, start=1):
        pixels, _ = query_pixels(split.read_image(row), describer)
        tokens.append(describer(pixels[None])[0].token.cpu())
        report.update(done, len(rows), "base images")
    return BaseIndex(
        tokens=torch.stack(tokens), image_ids=torch.tensor([int(split[row].image_id) for row in rows])
    )


def query_pixels(image: npt.NDArray[np.uint8], describer: Describer) -> tuple[Tensor, tuple[int, int]]:
    """An image [H, W, 3] as the network's input [3, h, w], and its size (h, w)."""
    size = short_side_size(
        image.shape[0], image.shape[1], describer.config.short_side, describer.config.long_side
    )
    return normalise(resize(image, size)), size


def base_pixels(image: npt.NDArray[np.uint8], describer: Describer) -> Tensor:
    """A base image [H, W, 3] as the network's input [3, h, w].

    As published, it is resized with Lanczos filtering, its long side cut to a whole number and not
    limited; only its class token comes from :func:`query_pixels`.
    """
    height, width = image.shape[:2]
    short = describer.config.short_side
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    return normalise(resize(image, size, Image.Resampling.LANCZOS))


class BaseImages:
    """Base images with their features, read when first asked for.

    Args:
        split: the base dataset.
        index: which of its images may be asked for.
        describer: must be the one the index was built with.
        part_ids: categories of parts that may be handed on.
        keep: how many images to remember.
    """

    def __init__(
        self,
        split: Split,
        index: BaseIndex,
        describer: Describer,
        *,
        part_ids: Collection[int],
        keep: int = 256,
    ) -> None:
        self._split, self._describer = split, describer
        self._parts = np.array(sorted(part_ids))
        wanted = set(index.image_ids.tolist())
        self._row_of = {
            int(split[i].image_id): i for i in range(len(split)) if int(split[i].image_id) in wanted
        }
        if len(self._row_of) != len(wanted):
            raise LayoutError(
                f"the index names {len(wanted) - len(self._row_of)} images the base dataset does not have",
                fix="build the index again from this dataset",
            )
        self.get = functools.lru_cache(maxsize=keep)(self._read)

    def _read(self, image_id: int) -> BaseImage:
        row = self._row_of[image_id]
        record = self._split[row]
        features = self._describer(base_pixels(self._split.read_image(row), self._describer)[None])[0]
        wanted = np.flatnonzero(np.isin(record.category_ids, self._parts)).tolist()
        rles = {i: rle for i in wanted if (rle := record.rles[i]) is not None}
        masks = [rle_to_mask(rle, record.height, record.width) for rle in rles.values()]
        shape = (0, record.height, record.width)
        return BaseImage(
            image_id=image_id,
            features=features,
            masks=torch.from_numpy(np.stack(masks) if masks else np.zeros(shape, dtype=bool)),
            category_ids=tuple(int(record.category_ids[i]) for i in rles),
        )
