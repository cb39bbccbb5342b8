"""Weights a recipe starts from: of the descriptors' transformer, of a backbone, or of a whole detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.errors import SourceError
from partseg.models.config import BackboneConfig, ModelConfig
from partseg.parsing.config import DescriptorConfig, PretrainConfig, ViTConfig
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, chosen, open_dataset
from pipelines.params import RawLister, Ref, StageParams
from pipelines.recipe import CONFIGS

if TYPE_CHECKING:
    from partseg.parsing.descriptors import Describer

VERSION = "2"
WEIGHTS = "descriptors.safetensors"
BACKBONE = "backbone.safetensors"
PUBLISHED = CONFIGS / "weights.yaml"
"""Where well-known files of weights are to be had."""


class LabelledData(BaseModel):
    """Images with labels, and perhaps with parts, to train on.

    Attributes:
        origin: the stage that made the dataset; ``from`` in a recipe.
        split: one of its splits.
        parts: learn from its parts of this group; without it only from what each image shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    origin: Ref = Field(alias="from")
    split: str = "train"
    parts: Group | None = None


class Params(StageParams):
    """Which weights, and where they come from.

    With ``backbone`` the result is what a train stage takes as its ``backbone``, with ``detector`` what it
    takes as ``init`` and what can be evaluated, without either the transformer for dense descriptors.

    Attributes:
        weights: a file in the raw folder ``weights`` (``--raw weights=DIR``): for a backbone or a detector
            any of the formats of ``partseg weights inspect``, for descriptors the ``.pth`` files of DINO
            (``dino_deitsmall8_pretrain.pth``), DINOv2 and DINOv3, and timm's ``.safetensors``.
        backbone: the network below a detector's pyramid.
        pixel_std: what the detector divides images by; weights trained without that are scaled to it.
        detector: the detector to build, usually ``{include: models/vlpart_r50.yaml}``.
        seed: instead of a file, random weights of the backbone or the detector from this seed: for trying a
            recipe out.
        vit: the transformer in the file: its ``name`` in timm, or its sizes; DINO's ViT-S/8 by default.
        images: without a file, the images to train the transformer on.
        training: how.
    """

    weights: str | None = None
    backbone: BackboneConfig | None = None
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    detector: ModelConfig | None = None
    seed: int | None = Field(default=None, ge=0)
    vit: ViTConfig = ViTConfig()
    images: tuple[LabelledData, ...] = ()
    training: PretrainConfig = PretrainConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> Params:
        if self.backbone and self.detector:
            raise ValueError("give either backbone or detector; a detector has a backbone of its own")
        if self.backbone or self.detector:
            if foreign := sorted(self.model_fields_set & {"vit", "images", "training"}):
                raise ValueError(f"{foreign[0]} is of the descriptors' transformer; leave it out")
            if (self.weights is None) == (self.seed is None):
                raise ValueError("give either weights, the name of a file, or a seed for random ones")
        elif self.seed is not None:
            raise ValueError("seed: random weights are for a backbone or a detector; give one")
        elif bool(self.weights) == bool(self.images):
            raise ValueError("give either weights, the name of a file, or images to train on")
        return self

    def raw_source(self) -> str | None:
        """The file comes from the raw folder ``weights``."""
        return "weights" if self.weights else None

    def raw_files(self) -> RawLister | None:
        """The file, if one is used: its content enters the key."""
        name = self.weights
        return (lambda root: _present(root, name)) if name else None


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Write ``descriptors.safetensors``, ``backbone.safetensors`` or a model, with its configuration.

    Raises:
        WeightsError: the file is damaged or of another network than the one asked for.
    """
    file = report.raw_root / params.weights if params.weights and report.raw_root is not None else None
    if params.backbone is not None:
        return _backbone(params.backbone, params, file, out, report)
    if params.detector is not None:
        return _detector(params.detector, params, file, out, report)
    return _descriptors(params, inputs, file, out, report)


def _backbone(
    config: BackboneConfig, params: Params, file: Path | None, out: Path, report: StageContext
) -> Metrics:
    import torch
    from safetensors.torch import save_file

    from partseg.models.checkpoints import load_backbone
    from partseg.models.vlpart import build_backbone

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed or 0)
        backbone = build_backbone(config)
    if file is None:
        report.log(f"random weights for {config.name}: only good for trying a recipe out")
    else:
        report.log(str(load_backbone(backbone, file, pixel_std=params.pixel_std)))
    tensors = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
    save_file(tensors, out / BACKBONE)
    (out / "backbone.json").write_text(f"{config.model_dump_json(indent=2)}\n", encoding="utf-8")
    return {"tensors": len(tensors), "parameters": sum(p.numel() for p in backbone.parameters())}


def _detector(
    config: ModelConfig, params: Params, file: Path | None, out: Path, report: StageContext
) -> Metrics:
    import torch

    from partseg.models.checkpoints import import_model
    from partseg.models.files import ModelCard, save_model
    from partseg.models.vlpart import build_model

    if file is None:
        report.log("random weights for a detector: only good for trying a recipe out")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed or 0)
            model = build_model(config)
        save_model(out, model, ModelCard(config=config))
    else:
        loaded = import_model(file, out, config)
        report.log(str(loaded.report))
        model = loaded.model
    return {"parameters": sum(p.numel() for p in model.parameters())}


def _descriptors(
    params: Params, inputs: Mapping[str, Artifact], file: Path | None, out: Path, report: StageContext
) -> Metrics:
    from partseg.parsing.pretrain import pretrain, training_images
    from partseg.parsing.vit import import_vit, save_vit

    if file is not None:
        model = import_vit(file, params.vit)
        save_vit(out / WEIGHTS, model, params.vit)
        return {"parameters": sum(p.numel() for p in model.parameters())}
    images = []
    for data in params.images:
        dataset = open_dataset(inputs[data.origin])
        parts = chosen(dataset.categories, kind="part", group=data.parts) if data.parts else []
        images += training_images(
            dataset.split(data.split), dataset.categories, {part.category_id for part in parts}
        )
    return pretrain(params.training, images, out, report)


def _present(root: Path, name: str) -> Sequence[str]:
    """The file, which must be there: otherwise where it is to be had, if that is known."""
    if not (root / name).is_file():
        urls = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
        known = f"it is published at {urls[name]}" if name in urls else "check the name"
        raise SourceError("no such file in the raw folder weights", where=root / name, fix=known)
    return [name]


def load_describer(artifact: Artifact, reading: DescriptorConfig) -> Describer:
    """The transformer of a pretrained stage, read as ``reading`` says, on the best device there is."""
    import torch

    from partseg.parsing.descriptors import Describer
    from partseg.parsing.vit import load_vit

    model, _ = load_vit(artifact.path / WEIGHTS)
    return Describer(model, reading, device="cuda" if torch.cuda.is_available() else "cpu")
