"""What a detector is made of, as data. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from partseg.errors import RecipeError
from partseg.validation import faults

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
FourPositive = tuple[Positive, Positive, Positive, Positive]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneConfig(_Strict):
    """The network below the feature pyramid.

    Attributes:
        name: a timm model that offers ``features_only`` and levels of strides 4, 8, 16 and 32. ``swin_*`` is
            built as the original code for detection does, see :mod:`partseg.models.swin`.
        norm: ``frozen`` turns every batch norm into a fixed affine map (its statistics come with pretrained
            weights); ``batch`` leaves batch norms as they are, which a network trained from nothing needs.
        frozen_stages: how many of timm's feature stages get no gradient; 2 is the stem and the first stage.
        drop_path: stochastic depth: the chance, in training, that the last residual branch is left out. Where
            timm's network has it.
    """

    name: str
    norm: Literal["frozen", "batch"] = "frozen"
    frozen_stages: Annotated[int, Field(ge=0)] = 2
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class RpnConfig(_Strict):
    """The region proposal network. One anchor size per level, strides 4, 8, 16, 32 and 64."""

    anchor_sizes: tuple[Positive, Positive, Positive, Positive, Positive] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    negative_iou: Fraction = 0.3
    positive_iou: Fraction = 0.7
    samples_per_image: Count = 256
    positive_fraction: Fraction = 0.5
    nms_iou: Fraction = 0.7
    candidates_per_level_train: Count = 2000
    candidates_per_level_test: Count = 1000
    proposals_train: Count = 1000
    proposals_test: Count = 1000

    @model_validator(mode="after")
    def _ordered(self) -> RpnConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError("negative_iou must not be larger than positive_iou")
        return self


class CascadeStage(_Strict):
    """A further box head: it starts from the boxes of the one before and asks for a better overlap."""

    positive_iou: Fraction
    box_weights: FourPositive


class RoiConfig(_Strict):
    """The heads that look at one region at a time.

    Attributes:
        positive_iou: how much a region overlaps what it is an example of, in the first stage.
        box_weights: of the box coding of the first stage.
        cascade: the stages after the first; none is a plain Mask R-CNN.
        canonical_size: the side, in pixels, of a region that is read from the level of stride 16.
        masks: whether there is a mask head. Without one masks are not learnt, what is found are boxes, and
            the sizes of a mask head mean nothing.
    """

    samples_per_image: Count = 512
    positive_fraction: Fraction = 0.25
    positive_iou: Fraction = 0.5
    box_weights: FourPositive = (10, 10, 5, 5)
    cascade: tuple[CascadeStage, ...] = ()
    canonical_size: Positive = 224
    box_pool: Count = 7
    box_channels: Count = 1024
    mask_pool: Count = 14
    mask_convs: Count = 4
    mask_channels: Count = 256
    masks: bool = True

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A mask head is only mentioned where it is left out.

        So keys of stages, models' descriptions and checkpoints of trainings are as they were before one could
        leave it out, and stay valid.
        """
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if name != "masks" or not value}


class LossConfig(_Strict):
    """Weights and rules of the losses.

    Attributes:
        parsed_part_rule: how a parsed part teaches; both are published. ``sampled`` (R50): regions are
            sampled against its box as for human labels. ``max_score`` (Swin-B): only its name counts, and
            teaches the proposal that already scores highest for it; nothing is taken for background.
        image_proposals: how many of the best proposals a label may choose from, of whole images and with
            ``max_score``.
        image_skips_last: the published code never chooses the last proposal of the list; its numbers contain
            that.
        federated_classes: how many classes a federated batch is graded on.
        federated_power: a class is drawn with a probability proportional to its image count to this power.
    """

    mask: Annotated[float, Field(ge=0.0)] = 1.0
    image: Annotated[float, Field(ge=0.0)] = 0.1
    parsed_part: Annotated[float, Field(ge=0.0)] = 0.1
    parsed_part_rule: Literal["sampled", "max_score"] = "sampled"
    image_proposals: Count = 128
    image_skips_last: bool = True
    federated_classes: Count = 50
    federated_power: Annotated[float, Field(ge=0.0)] = 0.5


class InferenceConfig(_Strict):
    """From an image to detections: sizes in pixels, thresholds on scores and overlaps."""

    short_side: Count = 800
    long_side: Count = 1333
    score_threshold: Fraction = 0.05
    nms_iou: Fraction = 0.5
    detections: Count = 100
    mask_threshold: Fraction = 0.5


class ModelConfig(_Strict):
    """One detector: a pyramid over a backbone, a proposal network and open-vocabulary region heads."""

    backbone: BackboneConfig
    pyramid_channels: Count = 256
    text_dim: Count = 1024
    temperature: Positive = 50.0
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    rpn: RpnConfig = RpnConfig()
    roi: RoiConfig = RoiConfig()
    losses: LossConfig = LossConfig()
    inference: InferenceConfig = InferenceConfig()


def load_config(path: Path) -> ModelConfig:
    """Read a model's YAML file.

    Raises:
        RecipeError: the file is missing, is not YAML or does not describe a model; every fault is named.
    """
    try:
        return ModelConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError("the model file cannot be read", where=path, fix=str(error)) from error
    except yaml.YAMLError as error:
        raise RecipeError("the model file is not YAML", where=path, fix=str(error)) from error
    except ValidationError as error:
        raise RecipeError(
            "the model file does not describe a model", where=path, fix=faults(error)
        ) from error
