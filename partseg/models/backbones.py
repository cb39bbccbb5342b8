"""Feature extractors: any timm network that yields levels of strides 4, 8, 16 and 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.utils.model import freeze_batch_norm_2d  # type: ignore[attr-defined]
from torch import Tensor, nn

from partseg.errors import RecipeError, WeightsError

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """What a pyramid stands on: four levels of strides 4 to 32, of ``channels`` each."""

    channels: tuple[int, ...]

    def load(self, path: Path) -> None:
        """Take pretrained weights from a file."""
        raise NotImplementedError


class TimmBackbone(Backbone):
    """A timm network that returns its levels of strides 4 to 32.

    Args:
        name: timm's name of the network.
        norm: ``frozen`` or ``batch``; see :class:`partseg.models.config.BackboneConfig`.
        frozen_stages: how many of timm's stages get no gradient.
        drop_path: the chance, in training, that the last residual branch is left out.
    """

    def __init__(self, *, name: str, norm: str, frozen_stages: int, drop_path: float = 0.0) -> None:
        super().__init__()
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        if name.startswith("swinv2"):
            options["strict_img_size"] = False
        self.base = create(name, features_only=True, **options)
        info: Any = self.base.feature_info
        reductions = list(info.reduction())
        if missing := [stride for stride in STRIDES if stride not in reductions]:
            raise RecipeError(
                f"backbone {name!r} has no level of stride {missing}, only {reductions}",
                fix="choose a timm network with strides 4, 8, 16 and 32",
            )
        self.channels_last = str(getattr(self.base, "output_fmt", "NCHW")).endswith("NHWC")
        # The last level of a stride is the deepest one.
        self.levels = tuple(max(i for i, r in enumerate(reductions) if r == stride) for stride in STRIDES)
        self.channels = tuple(int(info.channels()[level]) for level in self.levels)
        if norm == "frozen":
            self.base = freeze_batch_norm_2d(self.base)  # type: ignore[no-untyped-call]
        _freeze(self.base, [str(module) for module in info.module_name()][:frozen_stages])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] to four levels [B, C, H / stride, W / stride], finest first."""
        features = self.base(images)
        levels = [features[i] for i in self.levels]
        return [level.permute(0, 3, 1, 2) for level in levels] if self.channels_last else levels

    def load(self, path: Path) -> None:
        """Take pretrained weights, named as timm names them, from a .safetensors or tensors-only .pth file.

        Tensors of a classification head are left aside.

        Raises:
            WeightsError: the file cannot be read, or a tensor of the backbone is missing or has another
                shape.
        """
        load_tensors(self.base, read_tensors(path), where=path)


def load_tensors(module: nn.Module, given: dict[str, Tensor], *, where: Path, optional: str = "") -> None:
    """Load pretrained tensors into a backbone.

    Args:
        module: the network.
        given: tensors by name; those the network does not know are left aside.
        where: the file, for messages.
        optional: tensors whose names start with this keep their value where none is given.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    wanted = module.state_dict()
    # Whether batches were counted is of no use to a loaded network, and older files do not say.
    faults = [
        name
        for name, tensor in wanted.items()
        if not name.endswith("num_batches_tracked")
        and not (optional and name.startswith(optional) and name not in given)
        and (name not in given or given[name].shape != tensor.shape)
    ]
    if faults:
        raise WeightsError(
            f"{len(faults)} backbone tensors are missing or have another shape, first {faults[0]!r}",
            where=where,
            fix="give the weights of this timm network",
        )
    module.load_state_dict({name: given.get(name, tensor) for name, tensor in wanted.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without ever running code from it.

    Raises:
        WeightsError: the file is missing, damaged or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise WeightsError("the weights cannot be read", where=path, fix=str(error)) from error
    except Exception as error:  # torch raises pickle's own error for anything that is not a tensor
        raise WeightsError(
            "the file holds more than tensors", where=path, fix="convert it to safetensors first"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError("the file is not a table of named tensors", where=path)
    return loaded


def create(name: str, **options: Any) -> nn.Module:
    """The network timm knows by a name, with random weights.

    Raises:
        RecipeError: timm does not have it, or it does not know an option.
    """
    if ":" in name:  # "hf-hub:..." would be fetched from the network
        raise RecipeError(f"{name!r} is not one of timm's own networks", fix="name one without a colon")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    except RuntimeError as error:
        known = ", ".join(timm.list_models(f"*{name[:6]}*")[:8])
        raise RecipeError(
            f"timm has no backbone {name!r}", fix=f"did you mean one of: {known}" if known else None
        ) from error
    except TypeError as error:
        raise RecipeError(
            f"backbone {name!r} cannot be built like this", fix=f"change its options: {error}"
        ) from error
    return model


def _freeze(base: nn.Module, stages: list[str]) -> None:
    """Stop the gradient of everything up to the end of the last of the named stages."""
    if not stages:
        return
    # A feature network is a flat container: timm writes the dots of nested stages as underscores.
    names = [name for name, _ in base.named_modules()]
    ends = {stage.replace(".", "_") for stage in stages} | set(stages)
    inside = [i for i, name in enumerate(names) if any(name == e or name.startswith(f"{e}.") for e in ends)]
    if not inside:
        raise RecipeError(f"the backbone has no stages {stages}", fix="set frozen_stages to 0")
    for _, module in list(base.named_modules())[: max(inside) + 1]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
