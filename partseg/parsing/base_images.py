"""Base images with their features and the parts they can lend."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from partseg.errors import LayoutError
from partseg.layout import Split, rle_to_mask
from partseg.parsing.descriptors import Describer, Features
from partseg.parsing.index import BaseIndex
from partseg.parsing.transfer import masks_to_grid
from partseg.parsing.vit import resize


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An annotated image, ready to hand its parts on.

    Attributes:
        image_id: id in the base dataset.
        features: of the image at the size the describer works at.
        grids: bool [P, h, w], which of the patches belong to each part.
        category_ids: the parts' categories, P ids.
    """

    image_id: int
    features: Features
    grids: Tensor
    category_ids: tuple[int, ...]

    @property
    def byte_size(self) -> int:
        """Bytes that remembering it takes, but for a few hundred."""
        tensors = (self.features.token, self.features.descriptors, self.features.saliency, self.grids)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class BaseImages:
    """Base images with their features, read when first asked for.

    Args:
        split: the base dataset.
        index: which of its images may be asked for.
        describer: must be the one the index was built with.
        part_ids: categories of parts that may be handed on.
        keep: bytes of images to remember, those asked for last. Of DINO's ViT-S/8 at the published size
            1 GiB holds some 170 images.
    """

    def __init__(
        self,
        split: Split,
        index: BaseIndex,
        describer: Describer,
        *,
        part_ids: Collection[int],
        keep: int = 2**30,
    ) -> None:
        self._split, self._describer, self._keep = split, describer, keep
        self._parts = np.array(sorted(part_ids))
        wanted = set(index.image_ids.tolist())
        self._row_of = {
            image_id: row
            for row, image_id in enumerate(split.table("images").column("image_id").to_pylist())
            if image_id in wanted
        }
        if len(self._row_of) != len(wanted):
            raise LayoutError(
                f"the index names {len(wanted) - len(self._row_of)} images the base dataset does not have",
                fix="build the index again from this dataset",
            )
        self._remembered: OrderedDict[int, BaseImage] = OrderedDict()
        self._bytes = 0

    def get(self, image_id: int) -> BaseImage:
        """A base image by its id in the base dataset."""
        found = self._remembered.get(image_id)
        if found is not None:
            self._remembered.move_to_end(image_id)
            return found
        found = self._read(image_id)
        self._remembered[image_id] = found
        self._bytes += found.byte_size
        while self._bytes > self._keep and len(self._remembered) > 1:
            _, oldest = self._remembered.popitem(last=False)
            self._bytes -= oldest.byte_size
        return found

    def _read(self, image_id: int) -> BaseImage:
        row = self._row_of[image_id]
        record = self._split[row]
        features = self._describer(base_pixels(self._split.read_image(row), self._describer)[None])[0]
        lent = [
            (int(category_id), rle)
            for category_id, rle in zip(record.category_ids, record.rles, strict=True)
            if rle is not None and category_id in self._parts
        ]
        grids = torch.zeros((len(lent), *features.grid), dtype=torch.bool)
        for i, (_, rle) in enumerate(lent):  # one by one: all masks of a photo together take many megabytes
            mask = torch.from_numpy(rle_to_mask(rle, record.height, record.width))
            grids[i] = masks_to_grid(mask[None], features.grid)[0]
        return BaseImage(
            image_id=image_id,
            features=features,
            grids=grids.to(features.descriptors.device),
            category_ids=tuple(category_id for category_id, _ in lent),
        )


def base_pixels(image: npt.NDArray[np.uint8], describer: Describer) -> Tensor:
    """A base image [H, W, 3] as the network's input [3, h, w].

    As published, it is resized with Lanczos filtering, its long side cut to a whole number and not
    limited; only its class token is of :func:`partseg.parsing.index.query_pixels`.
    """
    height, width = image.shape[:2]
    short = describer.config.short_side
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    return describer.normalise(resize(image, size, Image.Resampling.LANCZOS))
