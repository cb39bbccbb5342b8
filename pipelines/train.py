"""Datasets and text embeddings → a trained detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from partseg.models.config import ModelConfig
from partseg.training.config import (
    AnnotationKind,
    AugmentConfig,
    Runtime,
    ScheduleConfig,
    TrainConfig,
    source,
)
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, chosen, open_dataset, reading_workers
from pipelines.params import Ref, StageParams
from pipelines.vocabulary import load_table

if TYPE_CHECKING:
    from partseg.models.vlpart import VLPart

VERSION = "1"


class TrainData(BaseModel):
    """One dataset of a training.

    Attributes:
        origin: the stage that made the dataset; ``from`` in a recipe.
        split: one of its splits.
        annotation: ``part`` = boxes and masks, ``image`` = labels of whole images, ``parsed_part`` = boxes
            written by the parser.
        kind: which categories are classes of this dataset: its parts or its objects.
        group: only categories of this group.
        ratio: share of images, relative to the other datasets' ratios.
        batch_size: images per iteration.
        federated: grade a batch on its own classes and some others only (LVIS, PACO).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    origin: Ref = Field(alias="from")
    split: str = "train"
    annotation: AnnotationKind = "part"
    kind: Literal["part", "object"] = "part"
    group: Group = "all"
    ratio: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=2, ge=1)
    federated: bool = False


class Params(StageParams):
    """What to train, on what, how long.

    Attributes:
        model: the detector.
        vocabulary: embeddings of all category names in use.
        init: a trained detector to start from.
        data: the datasets, mixed by their ratios.
        schedule: optimiser and learning rate.
        augment: how images are resized and flipped.
        amp: 16-bit type of backbone and pyramid.
        seed: of weights, order and augmentation.
        checkpoint_every: iterations between checkpoints; does not change the result.
    """

    model: ModelConfig
    vocabulary: Ref
    init: Ref | None = None
    data: tuple[TrainData, ...] = Field(min_length=1)
    schedule: ScheduleConfig
    augment: AugmentConfig = AugmentConfig()
    amp: Literal["none", "bf16", "fp16"] = "none"
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    checkpoint_every: int = Field(default=500, ge=1, exclude=True)


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Train; interrupted, the next run goes on from the last checkpoint."""
    from partseg.training.loop import train

    sources = []
    for item in params.data:
        dataset = open_dataset(inputs[item.origin])
        names = {c.name for c in chosen(dataset.categories, kind=item.kind, group=item.group)}
        sources.append(
            source(
                dataset,
                item.split,
                names=frozenset(names),
                annotation=item.annotation,
                batch_size=item.batch_size,
                ratio=item.ratio,
                federated=item.federated,
            )
        )
    config = TrainConfig(
        model=params.model,
        schedule=params.schedule,
        augment=params.augment,
        amp=params.amp,
        seed=params.seed,
        log_every=params.log_every,
    )
    return train(
        config,
        sources,
        load_table(inputs[params.vocabulary]),
        out,
        report.work,
        report,
        init=inputs[params.init].path if params.init else None,
        runtime=Runtime(workers=reading_workers(report), checkpoint_every=params.checkpoint_every),
    )


def load_detector(artifact: Artifact) -> VLPart:
    """The detector a train stage wrote, in evaluation mode, on the best device there is."""
    import torch

    from partseg.models.files import load_model

    return load_model(artifact.path, "cuda" if torch.cuda.is_available() else "cpu")
