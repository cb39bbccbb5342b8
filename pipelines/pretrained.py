"""A vision transformer for dense descriptors: from a local file, or trained on the images of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.parsing.config import DescriptorConfig, PretrainConfig, ViTConfig
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import open_dataset
from pipelines.params import RawLister, Ref, StageParams

if TYPE_CHECKING:
    from partseg.parsing.descriptors import Describer
    from partseg.parsing.pretrain import LabelledImage

VERSION = "1"
WEIGHTS = "descriptors.safetensors"


class LabelledData(BaseModel):
    """A dataset with image-level labels; ``origin`` is written ``from`` in a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    origin: Ref = Field(alias="from")
    split: str = "train"


class Params(StageParams):
    """Where the transformer comes from.

    Attributes:
        weights: a file in the raw folder ``weights`` (``--raw weights=DIR``) with tensors under timm's
            names, as in DINO's releases (``dino_deitsmall8_pretrain.pth``) and timm's ``.safetensors``.
        vit: the size of the transformer in that file.
        images: without a file, the images to train on; every one needs an image-level label.
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
    from partseg.parsing.pretrain import pretrain
    from partseg.parsing.vit import import_vit, save_vit

    if params.weights and report.raw_root is not None:
        model = import_vit(report.raw_root / params.weights, params.vit)
        save_vit(out / WEIGHTS, model, params.vit)
        return {"parameters": sum(p.numel() for p in model.parameters())}
    images = [image for data in params.images for image in _images(data, inputs)]
    return pretrain(params.training, images, out, report)


def _images(data: LabelledData, inputs: Mapping[str, Artifact]) -> Iterator[LabelledImage]:
    from partseg.parsing.pretrain import LabelledImage

    dataset = open_dataset(inputs[data.origin])
    names = {category.category_id: category.name for category in dataset.categories}
    split = dataset.split(data.split)
    for row, record in enumerate(split):
        if len(record.pos_category_ids):
            label = names[int(record.pos_category_ids[0])]
            yield LabelledImage(pixels=split.read_image(row), label=label)


def load_describer(artifact: Artifact, reading: DescriptorConfig) -> Describer:
    """The transformer of a pretrained stage, read as ``reading`` says, on the best device there is."""
    import torch

    from partseg.parsing.descriptors import Describer
    from partseg.parsing.vit import load_vit

    model, _ = load_vit(artifact.path / WEIGHTS)
    return Describer(model, reading, device="cuda" if torch.cuda.is_available() else "cpu")
