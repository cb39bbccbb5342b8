"""What network a table of tensors belongs to, told from names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from partseg.models.config import ModelConfig, load_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "models"

Shapes = Mapping[str, Sequence[int]]
Kind = Literal["vlpart", "timm resnet", "detectron2 resnet", "caffe2 resnet", "swin", "timm swin", "other"]

RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}
SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "swin_tiny",
    (96, (2, 2, 18, 2)): "swin_small",
    (128, (2, 2, 18, 2)): "swin_base",
    (192, (2, 2, 18, 2)): "swin_large",
}
"""Channels of the first level and blocks per stage; Liu et al., ICCV 2021, section 3.3."""

STRANGERS = (
    ("sem_seg_head.predictor.", "a Mask2Former or TAPPS"),
    ("sem_seg_head.", "a Panoptic-DeepLab of detectron2"),
    ("proposal_generator.centernet_head.", "a CenterNet2 detector (Detic)"),
    ("roi_heads.box_predictor.cls_score.weight", "a Mask R-CNN of detectron2 with a fixed set of classes"),
    ("roi_heads.box_predictor.0.cls_score.weight", "a cascade of detectron2 with a fixed set of classes"),
    ("roi_heads.", "a detector of detectron2"),
    ("roi_head.", "a detector of mmdetection"),
    ("decode_head.", "a network for semantic segmentation of mmsegmentation"),
    ("visual.", "a CLIP model: image and text encoder"),
    ("cls_token", "a vision transformer (ViT)"),
    ("transformer.", "a transformer for detection or text"),
)
"""Other networks people have at hand, by the beginning of a name; the first that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network as recognised.

    Attributes:
        kind: whose names the tensors have; ``vlpart`` is a whole detector, ``other`` is none of ours.
        backbone: timm's name of the backbone, "" where it is none that is known.
        words: for people.
        config: of a detector: what to build, everything the tensors can tell being taken from them.
    """

    kind: Kind
    backbone: str
    words: str
    config: ModelConfig | None = None


def recognise(shapes: Shapes) -> Architecture:
    """The network some tensors belong to.

    Args:
        shapes: of the tensors, by name.
    """
    if any(re.fullmatch(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.linear\.weight", n) for n in shapes):
        if (found := _vlpart(shapes)) is not None:
            return found
        return Architecture(kind="other", backbone="", words="a VLPart with a backbone that is not known")
    if "res2_0_branch2a_w" in shapes:
        return Architecture(
            kind="caffe2 resnet", backbone="resnet50", words="a ResNet with caffe2's names (MSRA)"
        )
    if "res2.0.conv1.weight" in shapes:
        return Architecture(
            kind="detectron2 resnet", backbone="resnet50", words="a ResNet with detectron2's names"
        )
    if "layer1.0.conv1.weight" in shapes and not any(name.startswith("roi") for name in shapes):
        name = _resnet(shapes, "")
        return Architecture(kind="timm resnet", backbone=name, words=f"a backbone, {name or 'some ResNet'}")
    if "layers.0.blocks.0.attn.relative_position_bias_table" in shapes:
        kind: Kind = "swin" if "layers.0.downsample.reduction.weight" in shapes else "timm swin"
        name = _swin(shapes, "")
        return Architecture(kind=kind, backbone=name, words=f"a backbone, {name or 'some Swin Transformer'}")
    for beginning, words in STRANGERS:
        if any(name.startswith(beginning) for name in shapes):
            return Architecture(kind="other", backbone="", words=words)
    return Architecture(kind="other", backbone="", words="nothing that is known here")


def _vlpart(shapes: Shapes) -> Architecture | None:
    resnet = _resnet(shapes, "backbone.bottom_up.base.")
    backbone = resnet or _swin(shapes, "backbone.bottom_up.")
    stages = _count(shapes, r"roi_heads\.box_predictor\.(\d+)\.cls_score\.linear\.weight")
    base = load_config(CONFIGS / ("vlpart_r50.yaml" if resnet else "vlpart_swinb.yaml"))
    cascade = load_config(CONFIGS / "vlpart_swinb.yaml").roi.cascade
    if not backbone or (stages and stages != len(cascade) + 1):
        return None
    first = "0." if stages else ""
    masks = any(name.startswith("roi_heads.mask_head.") for name in shapes)
    needed = (
        "backbone.fpn_output2.weight",
        f"roi_heads.box_head.{first}fc1.weight",
        f"roi_heads.box_predictor.{first}cls_score.linear.weight",
        *(["roi_heads.mask_head.deconv.weight"] if masks else []),
    )
    # No model larger than the file: a tensor without numbers may claim any side.
    if any(len(shape := shapes.get(name, ())) < 2 or 0 in shape for name in needed):
        return None
    output, fc1, text, *mask = (shapes[name] for name in needed)
    # Built from dictionaries and validated again: shapes of a damaged file may make no sense.
    tables = base.model_dump()
    tables["backbone"]["name"] = backbone
    tables["pyramid_channels"], tables["text_dim"] = min(output[:2]), text[0]
    tables["roi"] |= {
        "box_pool": math.isqrt(fc1[1] // output[0]),
        "box_channels": min(fc1[0], text[1]),
        "cascade": cascade if stages else (),
        "masks": masks,
    }
    if masks:
        tables["roi"] |= {
            "mask_channels": min(mask[0][:2]),
            "mask_convs": _count(shapes, r"roi_heads\.mask_head\.mask_fcn(\d+)\.weight"),
        }
    try:
        config = ModelConfig.model_validate(tables)
    except ValueError:
        return None
    heads = f"a cascade of {stages} heads" if stages else "one box head"
    words = f"VLPart, {backbone}, {heads}, {'' if masks else 'no mask head, '}texts of {text[0]} numbers"
    return Architecture(kind="vlpart", backbone=backbone, words=words, config=config)


def _resnet(shapes: Shapes, prefix: str) -> str:
    start = re.escape(prefix)
    counts = tuple(_count(shapes, rf"{start}layer{n}\.(\d+)\.conv3\.weight") for n in range(1, 5))
    return RESNETS.get(counts, "")


def _swin(shapes: Shapes, prefix: str) -> str:
    start = re.escape(prefix)
    depths = tuple(_count(shapes, rf"{start}layers\.{n}\.blocks\.(\d+)\.norm1\.weight") for n in range(4))
    channels = (*shapes.get(f"{prefix}patch_embed.proj.weight", ()), 0)[0]
    table = shapes.get(f"{prefix}layers.0.blocks.0.attn.relative_position_bias_table", (0,))
    size = SWINS.get((channels, depths), "")
    # (2 w - 1)² offsets in a window of side w; timm's names say the image size that goes with it.
    window = {169: "_patch4_window7_224", 529: "_patch4_window12_384"}.get((*table, 0)[0], "")
    return f"{size}{window}" if size and window else ""


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in the place of the group."""
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})
