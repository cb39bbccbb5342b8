"""A vision transformer for dense descriptors: from a local file, or trained on the images of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.parsing.config import DescriptorConfig, PretrainConfig, ViTConfig
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, chosen, open_dataset
from pipelines.params import RawLister, Ref, StageParams

if TYPE_CHECKING:
    from partseg.parsing.descriptors import Describer

VERSION = "1"
WEIGHTS = "descriptors.safetensors"


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
    """Where the transformer comes from.

    Attributes:
        weights: a file in the raw folder ``weights`` (``--raw weights=DIR``) with tensors under timm's
            names, as in DINO's releases (``dino_deitsmall8_pretrain.pth``) and timm's ``.safetensors``.
        vit: the size of the transformer in that file.
        images: without a file, the images to train on.
        training: how.
    """

    weights: str | None = None
    vit: ViTConfig = ViTConfig()
    images: tuple[LabelledData, ...] = ()
    training: PretrainConfig = PretrainConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> Params:
        if bool(self.weights) == bool(self.images):
            raise ValueError("give either weights, the name of a file, or images to train on")
        return self

    def raw_source(self) -> str | None:
        """The file comes from the raw folder ``weights``."""
        return "weights" if self.weights else None

    def raw_files(self) -> RawLister | None:
        """The file, if one is used: its content enters the key."""
        name = self.weights
        return (lambda root: [name]) if name else None


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Write ``descriptors.safetensors`` and its configuration."""
    from partseg.parsing.pretrain import pretrain, training_images
    from partseg.parsing.vit import import_vit, save_vit

    if params.weights and report.raw_root is not None:
        model = import_vit(report.raw_root / params.weights, params.vit)
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


def load_describer(artifact: Artifact, reading: DescriptorConfig) -> Describer:
    """The transformer of a pretrained stage, read as ``reading`` says, on the best device there is."""
    import torch

    from partseg.parsing.descriptors import Describer
    from partseg.parsing.vit import load_vit

    model, _ = load_vit(artifact.path / WEIGHTS)
    return Describer(model, reading, device="cuda" if torch.cuda.is_available() else "cpu")
