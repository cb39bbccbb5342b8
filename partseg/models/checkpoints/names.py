"""Names of tensors: other people's files and ours, both ways.

Our detectors keep the names of the original VLPart's state dicts, so between those two a name is its own
translation; what differs is that the originals also save things our models compute or are given
(:data:`ASIDE`). ImageNet backbones come under other names: the tables here give, for each, ours within the
backbone: those of timm for a ResNet, those of the original Swin Transformer for a Swin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

RESNET50_BLOCKS = (3, 4, 6, 3)
"""Residual blocks of the four stages; He et al., CVPR 2016, table 1."""

BN_EPS = 1e-5
"""Added to the variance by every batch norm, detectron2's frozen ones included."""

COUNTER = "num_batches_tracked"
"""The last part of a name that files may lack: older ones do, and no network needs it."""

ASIDE = {
    r"roi_heads\.box_predictor(\.\d+)?\.cls_score\.zs_weight(_\w+)?": (
        "embeddings of the training's classes; ours come with each call"
    ),
    r"roi_heads\.box_predictor(\.\d+)?\.freq_weight(_\d+)?": (
        "how often the training drew each class; of use to its federated loss only"
    ),
    r"backbone\.bottom_up\..*\.num_batches_tracked": "a counter that frozen batch norms do not use",
    r"backbone\.bottom_up\..*\.relative_position_index": "which places of a window share a bias; computed",
    r"pixel_(mean|std)": "part of the configuration",
}
"""Tensors of the original detectors that ours do not have, and why."""

BACKBONE_ASIDE = {
    r"(fc|head|head\.fc|fc1000|pred|classifier)[._](weight|bias|w|b)": "the classifier of ImageNet's labels",
    r"norm\.(weight|bias)": "the norm before the classifier; a detector has one norm per level",
    r"(.*\.)?num_batches_tracked": "a counter that frozen batch norms do not use",
    r".*\.relative_position_index": "which places of a window share a bias; computed",
    r".*\.attn_mask": "which shifted windows touch; computed",
    r"conv1_b": "a bias of zeros before the first norm",
    r".*_momentum": "a state of the training",
}
"""The same for ImageNet backbones."""


def aside(name: str, reasons: Mapping[str, str]) -> str | None:
    """Why a tensor is of no use to our model, or None where it should be."""
    return next((why for pattern, why in reasons.items() if re.fullmatch(pattern, name)), None)


def resnet_names(blocks: Sequence[int] = RESNET50_BLOCKS) -> tuple[tuple[str, str, str], ...]:
    """Every convolution of a bottleneck ResNet: its name in caffe2's files, in detectron2 and in timm.

    detectron2's ``R-50.pkl`` (MSRA) has caffe2's names; its conversions of torchvision's weights its own.
    """
    rows = [("conv1", "stem.conv1", "conv1")]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            caffe2, detectron2, timm = (
                f"res{stage + 1}_{block}_", f"res{stage + 1}.{block}.", f"layer{stage}.{block}.",
            )  # fmt: skip
            rows += [
                (f"{caffe2}branch2a", f"{detectron2}conv1", f"{timm}conv1"),
                (f"{caffe2}branch2b", f"{detectron2}conv2", f"{timm}conv2"),
                (f"{caffe2}branch2c", f"{detectron2}conv3", f"{timm}conv3"),
            ]
            if block == 0:
                rows.append((f"{caffe2}branch1", f"{detectron2}shortcut", f"{timm}downsample.0"))
    return tuple(rows)


def _timm_norm(conv: str) -> str:
    """The norm behind a convolution: ``layer1.0.conv2`` → ``layer1.0.bn2``, ``downsample.0`` → ``.1``."""
    return f"{conv[:-1]}1" if conv.endswith("downsample.0") else conv.replace("conv", "bn")


def caffe2_resnet() -> dict[str, str]:
    """caffe2's name → timm's. These files hold affine norms only, see :func:`from_caffe2`."""
    names = {}
    for caffe2, _, timm in resnet_names():
        norm = "res_conv1_bn" if caffe2 == "conv1" else f"{caffe2}_bn"
        names[f"{caffe2}_w"] = f"{timm}.weight"
        names[f"{norm}_s"] = f"{_timm_norm(timm)}.weight"
        names[f"{norm}_b"] = f"{_timm_norm(timm)}.bias"
    return names


def detectron2_resnet() -> dict[str, str]:
    """detectron2's name → timm's."""
    names = {}
    for _, detectron2, timm in resnet_names():
        names[f"{detectron2}.weight"] = f"{timm}.weight"
        for kind in ("weight", "bias", "running_mean", "running_var"):
            names[f"{detectron2}.norm.{kind}"] = f"{_timm_norm(timm)}.{kind}"
    return names


def swin_from_timm(name: str) -> str:
    """From timm's name of a Swin tensor to the original's: timm counts a merging to the stage behind it."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", name)


def swin_to_timm(name: str) -> str:
    """The inverse of :func:`swin_from_timm`."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)


def from_caffe2(tensors: Mapping[str, Tensor], pixel_std: Sequence[float]) -> dict[str, Tensor]:
    """A caffe2 (MSRA) ResNet-50 under timm's names, exact on images as ours are prepared.

    Those networks see blue, green, red, minus the mean; ours red, green, blue, minus the mean, divided by
    the deviation. So the first convolution gets its inputs turned round and multiplied by the deviation.
    Norms are affine maps there: here their mean is 0 and their variance 1.

    Args:
        tensors: by caffe2's names; others are left out.
        pixel_std: the deviations ours divide by, red, green, blue.
    """
    found: dict[str, Tensor] = {}
    for name, ours in caffe2_resnet().items():
        if name not in tensors:
            continue
        found[ours] = tensors[name]
        if name.endswith("_s"):
            norm = ours.removesuffix(".weight")
            found[f"{norm}.running_mean"] = torch.zeros_like(tensors[name])
            found[f"{norm}.running_var"] = torch.full_like(tensors[name], 1 - BN_EPS)
    if "conv1.weight" in found:
        found["conv1.weight"] = _flipped(found["conv1.weight"]) * _column(pixel_std, found["conv1.weight"])
    return found


def to_caffe2(tensors: Mapping[str, Tensor], pixel_std: Sequence[float]) -> dict[str, Tensor]:
    """The inverse of :func:`from_caffe2`: every norm is folded into its affine map."""
    found: dict[str, Tensor] = {}
    for name, ours in caffe2_resnet().items():
        if ours not in tensors:
            continue
        found[name] = tensors[ours]
        if name.endswith(("_s", "_b")):
            norm = ours.rpartition(".")[0]
            scale = tensors[f"{norm}.weight"] / torch.sqrt(tensors[f"{norm}.running_var"] + BN_EPS)
            shift = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale
            found[name] = scale if name.endswith("_s") else shift
    if "conv1_w" in found:
        found["conv1_w"] = _flipped(found["conv1_w"] / _column(pixel_std, found["conv1_w"]))
    return found


def _flipped(stem: Tensor) -> Tensor:
    return stem.flip(1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(list(values)).view(1, -1, 1, 1)
