"""ImageNet weights for the backbone of a detector, whoever published them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from partseg.models.backbones import WHOLE, Backbone
from partseg.models.checkpoints.architecture import Architecture, recognise
from partseg.models.checkpoints.names import (
    BACKBONE_ASIDE,
    COUNTER,
    aside,
    caffe2_resnet,
    detectron2_resnet,
    from_caffe2,
    swin_from_timm,
)
from partseg.models.checkpoints.read import read_checkpoint
from partseg.models.checkpoints.report import ImportReport, account, compare

BEHIND = "behind the last level a detector uses"


def load_backbone(backbone: Backbone, path: Path, *, pixel_std: Sequence[float]) -> ImportReport:
    """Load the weights of a classification network into a backbone. Nothing is changed if they do not fit.

    Args:
        backbone: ``model.backbone.bottom_up`` of a detector.
        path: .pth, .pkl or .safetensors of the network in timm's names; for ResNet-50 also detectron2's
            ``R-50.pkl`` (caffe2's or its own names), for a Swin Transformer also the original's names,
            VLPart's ``swin_base_patch4_window7_224_22k.pkl`` among them.
        pixel_std: what images are divided by, red, green, blue; see :func:`names.from_caffe2`.

    Returns:
        What became of every tensor.

    Raises:
        WeightsError: the file cannot be read, or is of another network.
    """
    tensors = read_checkpoint(path).tensors
    found = recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    ours = backbone.network.state_dict()
    reasons = {
        name: why for name in tensors if name not in ours and (why := aside(name, BACKBONE_ASIDE)) is not None
    }
    rest = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    given, notes = _in_our_names(rest, found, ours, pixel_std)
    if found.kind in ("timm resnet", "other"):
        stages = {_stage(name) for name in ours}
        behind = [name for name in given if _stage(name) not in stages]
        # Of a network that has nothing in common with this one, everything would be.
        if len(behind) < len(given):
            reasons |= dict.fromkeys(behind, BEHIND)
            given = {name: tensor for name, tensor in given.items() if name not in reasons}
    # What classification weights do not have keeps its value.
    wanted = {
        name: tensor for name, tensor in ours.items() if name in given or not name.startswith(backbone.own)
    }
    match = compare(wanted, given, optional=COUNTER)
    report = account(path, found.words, match, aside=reasons, notes=notes)
    report.check()
    backbone.network.load_state_dict({name: given[name] for name in report.loaded}, strict=False)
    return report


def _in_our_names(
    tensors: Mapping[str, Tensor],
    found: Architecture,
    ours: Collection[str],
    pixel_std: Sequence[float],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if found.kind == "caffe2 resnet":
        known = caffe2_resnet()
        rest = {name: tensor for name, tensor in tensors.items() if name not in known}
        return from_caffe2(tensors, pixel_std) | rest, (
            "the first convolution was turned from blue-green-red to red-green-blue and scaled to images "
            "divided by their deviation; these weights were trained with the stride in the first convolution "
            "of a block, timm's network has it in the second, so training has to adapt them",
        )
    if found.kind == "detectron2 resnet":
        table = detectron2_resnet()
        return {table.get(name, name): tensor for name, tensor in tensors.items()}, ()
    if found.kind == "timm swin":
        return {swin_from_timm(name): tensor for name, tensor in tensors.items()}, ()
    return {_as_level(name, ours): tensor for name, tensor in tensors.items()}, ()


def _as_level(name: str, ours: Collection[str]) -> str:
    """A name in timm's classifier as it is in timm's network of levels, where it is there.

    Some of these networks have the stages of a sequence side by side, ``stages_0`` for ``stages.0``; others
    have the whole classifier inside.
    """
    forms = (name, name.replace(".", "_", 1), *(f"{whole}.{name}" for whole in WHOLE))
    return next((form for form in forms if form in ours), name)


def _stage(name: str) -> str:
    """The beginning of a name that says where in the network the tensor is."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in WHOLE else parts[0]
