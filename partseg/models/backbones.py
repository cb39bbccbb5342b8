"""Feature extractors: any timm network that yields levels of strides 4, 8, 16 and 32."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import timm
from timm.utils.model import freeze_batch_norm_2d  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from partseg.errors import RecipeError
from partseg.models.frozen_norm import fold_frozen_norms

STRIDES = (4, 8, 16, 32)
WHOLE = ("model", "body")
"""What timm calls a whole network inside of what takes its levels out."""


class Backbone(nn.Module, ABC):
    """What a pyramid stands on: four levels of strides 4 to 32.

    Attributes:
        channels: of each level.
        own: beginnings of the names of tensors that weights from a classification do not have.
    """

    channels: tuple[int, ...]
    own: tuple[str, ...] = ()

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module whose tensors are named as those of a published network."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] to four levels [B, C, H / stride, W / stride], finest first."""

    @abstractmethod
    def recompute_activations(self, on: bool) -> None:
        """Keep fewer activations in training and compute them again in the backward pass.

        Gradients and statistics stay the same to the last bit, random choices included.

        Raises:
            RecipeError: the network cannot do it.
        """


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
        self.name = name
        self.running = False
        self._handles: list[RemovableHandle] = []
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
            fold_frozen_norms(self.base)
        _freeze(self.base, [str(module) for module in info.module_name()][:frozen_stages])

    @property
    def network(self) -> nn.Module:
        """The network as timm builds it."""
        return self.base

    def forward(self, images: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.forward`."""
        self.running = True
        try:
            features = self.base(images)
        finally:
            self.running = False
        levels = [features[i] for i in self.levels]
        return [level.permute(0, 3, 1, 2) for level in levels] if self.channels_last else levels

    def recompute_activations(self, on: bool) -> None:
        """See :meth:`Backbone.recompute_activations`; how much is kept is timm's choice for the network."""
        # timm gives levels in two ways: a chain of stages, which knows how to do this itself, or the whole
        # network with something around it, which has to be told.
        holder: Any = next(
            (getattr(self.base, name) for name in WHOLE if hasattr(self.base, name)), self.base
        )
        try:
            holder.set_grad_checkpointing(on)
        except AssertionError as error:
            raise RecipeError(
                f"backbone {self.name!r} cannot compute activations again", fix="turn recompute off"
            ) from error
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for norm in self.base.modules():
            if on and isinstance(norm, _BatchNorm):
                once = _CountedOnce(self)
                self._handles += [
                    norm.register_forward_pre_hook(once.before),
                    norm.register_forward_hook(once.after, always_call=True),
                ]


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


class _CountedOnce:
    """Hooks that keep a batch norm from counting a batch again when its activations are computed again."""

    def __init__(self, backbone: TimmBackbone) -> None:
        self.backbone = backbone
        self.kept: dict[str, Any] = {}

    def before(self, norm: nn.Module, _: Any) -> None:
        """Without a momentum the statistics stay."""
        if not self.backbone.running:
            self.kept = {name: getattr(norm, name) for name in ("momentum", "num_batches_tracked")}
            norm.momentum, norm.num_batches_tracked = 0.0, None  # type: ignore[assignment]

    def after(self, norm: nn.Module, *_: Any) -> None:
        """As it was; also where torch leaves the norm early because it has all it needs."""
        for name, value in self.kept.items():
            setattr(norm, name, value)
        self.kept = {}


def _freeze(base: nn.Module, stages: list[str]) -> None:
    """Stop the gradient of everything up to the end of the last of the named stages."""
    if not stages:
        return
    # A feature network is a flat container: timm writes the dots of nested stages as underscores.
    names = [name for name, _ in base.named_modules()]
    ends = {stage.replace(".", "_") for stage in stages} | {
        f"{prefix}{stage}" for prefix in ("", *(f"{whole}." for whole in WHOLE)) for stage in stages
    }
    inside = [i for i, name in enumerate(names) if any(name == e or name.startswith(f"{e}.") for e in ends)]
    if not inside:
        raise RecipeError(f"the backbone has no stages {stages}", fix="set frozen_stages to 0")
    for _, module in list(base.named_modules())[: max(inside) + 1]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
