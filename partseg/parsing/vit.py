"""The vision transformer behind the descriptors: its configuration, weights and images.

Any plain timm vision transformer does. The published one is DINO's ViT-S/8. Released weights are read from a
local file, timm's or the authors' own; nothing is ever downloaded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from partseg.errors import WeightsError
from partseg.files import write_file
from partseg.parsing.config import ViTConfig
from partseg.parsing.forward import Transformer, check_model
from partseg.parsing.released import timm_names

# Statistics of ImageNet in RGB, as used to train DINO (facebookresearch/dino).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Colour = tuple[float, float, float]


def build_vit(config: ViTConfig) -> Transformer:
    """A vision transformer without a classifier, weights drawn from torch's generator.

    Raises:
        WeightsError: timm has no model of that name, or one whose descriptors cannot be read.
    """
    if config.name is not None:
        return _named(config.name)
    model = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        num_classes=0,
    )
    if config.stem:
        model.patch_embed.stem = _stem(config.stem)
        kernel = config.patch_size // 2 ** len(config.stem)
        model.patch_embed.proj = nn.Conv2d(config.stem[-1], config.dim, kernel, stride=kernel)
    return model


def _named(name: str) -> Transformer:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models("*vit*"), n=1)
        raise WeightsError(
            f"timm {timm.__version__} has no model '{name}'",
            fix=f"did you mean {close[0]}?" if close else "see timm.list_models('vit*')",
        )
    try:
        # With dynamic sizes timm's rotations by position are made for any grid.
        model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:  # not a transformer that takes other sizes
        model = timm.create_model(name, pretrained=False, num_classes=0)
    try:
        check_model(model)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error.what}", fix=error.fix) from None
    return cast(Transformer, model)


def _stem(channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions that halve the image, each with a norm and a nonlinearity."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *channels)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
    return nn.Sequential(*layers)


def statistics(model: Transformer) -> tuple[Colour, Colour]:
    """Mean and standard deviation of the pixels, 0 to 1, that a model was trained with."""
    known = getattr(model, "pretrained_cfg", None) or {}
    return known.get("mean", MEAN), known.get("std", STD)


def load_vit(weights: Path) -> tuple[Transformer, ViTConfig]:
    """A model from a safetensors file with its configuration beside it.

    Args:
        weights: the safetensors file; ``<same name>.json`` holds the :class:`ViTConfig`.

    Raises:
        WeightsError: a file is missing, unreadable, or its tensors do not fit the configuration.
    """
    sidecar = weights.with_suffix(".json")
    for path in (weights, sidecar):
        if not path.is_file():
            raise WeightsError("the descriptor weights are not complete", where=path)
    try:
        config = ViTConfig.model_validate(json.loads(sidecar.read_text())["vit"])
        tensors = load_file(weights)
    except Exception as error:
        raise WeightsError(f"cannot be read ({error})", where=weights) from error
    return _filled(build_vit(config), tensors, weights), config


def import_vit(source: Path, config: ViTConfig) -> Transformer:
    """A model from released weights: ``.pth`` files of DINO, DINOv2 and DINOv3, or timm's ``.safetensors``.

    Args:
        source: the file. A ``.pth`` must hold tensors only; nothing in it is executed. Tensors of a
            classifier (``head...``) are left out.
        config: the model in it.

    Raises:
        WeightsError: the file cannot be read, or its tensors do not fit the configuration.
    """
    try:
        if source.suffix == ".safetensors":
            tensors = load_file(source)
        else:
            tensors = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"cannot be read ({error})", where=source) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise WeightsError(
            "holds more than tensors",
            where=source,
            fix="use the file with the backbone only, not a full checkpoint",
        )
    model = build_vit(config)
    body = {name: value for name, value in tensors.items() if not name.startswith("head")}
    return _filled(model, timm_names(body, model, source), source)


def save_vit(weights: Path, model: Transformer, config: ViTConfig, **extra: object) -> None:
    """Write weights and, beside them, the configuration; the weights last.

    Args:
        weights: the safetensors file; ``<same name>.json`` is written too.
        model: the model.
        config: its name or size.
        extra: more JSON values for the configuration file, for instance how it was trained.
    """
    card = json.dumps({"vit": config.model_dump(), **extra}, indent=2, sort_keys=True) + "\n"
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    weights.parent.mkdir(parents=True, exist_ok=True)
    write_file(weights.with_suffix(".json"), card.encode())
    write_file(weights, save(tensors))


def _filled(model: Transformer, tensors: Mapping[str, torch.Tensor], where: Path) -> Transformer:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise WeightsError(
            f"{len(wrong)} tensors do not fit the configuration, the first is {wrong[0]}: "
            f"expected {expected.get(wrong[0], 'nothing')}, found {found.get(wrong[0], 'nothing')}",
            where=where,
        )
    model.load_state_dict(tensors)
    return model.eval()


def short_side_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """Height and width with the short side at ``short``, but no side longer than ``longest``.

    Rounded half up, the rule of detectron2's ResizeShortestEdge.
    """
    scale = min(short / min(height, width), longest / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    method: Image.Resampling = Image.Resampling.BILINEAR,
) -> npt.NDArray[np.uint8]:
    """An RGB image [H, W, 3] at another (height, width), antialiased as Pillow does."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), method))


def normalise(image: npt.NDArray[np.uint8], mean: Colour = MEAN, std: Colour = STD) -> torch.Tensor:
    """An RGB image [H, W, 3] of bytes as the network's input, float32 [3, H, W]."""
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
