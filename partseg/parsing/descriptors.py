"""Dense descriptors of an image from a vision transformer.

A descriptor is the key of one patch in the last attention layer, the heads interleaved. Patches
may overlap: the stride of the patch embedding can be smaller than the patch, and the position
embedding is interpolated to the finer grid. The saliency of a patch is how much the class token
attends to it. This is the recipe of deep ViT features as dense visual descriptors (Amir et al.,
2021), which VLPart's parser uses with DINO ViT-S/8 at stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from partseg.errors import WeightsError
from partseg.parsing.config import DescriptorConfig
from partseg.parsing.forward import Transformer, check_model, check_stride, head_count, run_blocks
from partseg.parsing.vit import normalise, statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the transformer sees in one image of h × w patches.

    Attributes:
        token: class token after the last block, before the final norm, float32 [D].
        descriptors: keys of the last block, float32 [h * w, D], row by row.
        saliency: attention of the class token, 0 to 1, float32 [h * w].
        grid: (h, w).
    """

    token: Tensor
    descriptors: Tensor
    saliency: Tensor
    grid: tuple[int, int]


class Describer:
    """Reads features of images with one transformer.

    Args:
        model: a plain timm vision transformer with a class token; registers, layer scale, and positions that
            are learned or rotated are all understood.
        config: where and how to read.
        device: "cpu", "cuda", ...

    Raises:
        WeightsError: the model is of another kind, or the configuration asks for attention heads or a stride
            that it does not have.
    """

    def __init__(
        self, model: Transformer, config: DescriptorConfig, *, device: str | torch.device = "cpu"
    ) -> None:
        check_model(model)
        check_stride(model, config.stride)
        heads = head_count(model)
        if not config.saliency_heads or max(config.saliency_heads) >= heads or min(config.saliency_heads) < 0:
            raise WeightsError(
                f"saliency_heads {list(config.saliency_heads)} do not exist in a model of {heads} heads",
                fix=f"choose from 0 to {heads - 1}",
            )
        self.config = config
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self._mean, self._std = statistics(model)

    @property
    def token_size(self) -> int:
        """Numbers in a class token."""
        return int(self.model.embed_dim)

    def normalise(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """An RGB image [H, W, 3] of bytes as the model's input, float32 [3, H, W]."""
        return normalise(image, self._mean, self._std)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Features]:
        """Features of images of one size, in one forward pass.

        Args:
            images: normalised float32 [B, 3, H, W].

        Returns:
            B features, on the device of the model. In a batch the last digits may differ from those of the
            image alone, see :meth:`describe`.
        """
        seen = run_blocks(self.model, images.to(self.device), self.config.stride)
        saliency = seen.attention[:, list(self.config.saliency_heads)].mean(1)
        return [
            Features(
                token=seen.token[i], descriptors=seen.keys[i], saliency=min_max(saliency[i]), grid=seen.grid
            )
            for i in range(len(images))
        ]

    def describe(self, images: Sequence[Tensor]) -> list[Features]:
        """Features of images of any sizes, the same whatever images they are described with.

        The images go through the network one by one. In a batch, matrix products are cut up differently and
        the last digits change with the company, which can turn a correspondence. Little is lost: at the
        published size an image is 4,000 patches, which make large products by themselves.

        Args:
            images: normalised float32 [3, H_i, W_i].
        """
        return [self(image[None])[0] for image in images]

    def foreground(self, features: Features) -> Tensor:
        """Patches the class token attends to, bool [h, w]."""
        return (features.saliency > self.config.saliency_threshold).view(features.grid)


def min_max(values: Tensor) -> Tensor:
    """Values [N] stretched to 0 to 1; all 0 if they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
