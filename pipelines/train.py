"""Datasets and text embeddings → a trained detector."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.files import default_cache
from partseg.layout import Dataset
from partseg.models.config import ModelConfig
from partseg.training.config import (
    AnnotationKind,
    AugmentConfig,
    Runtime,
    ScheduleConfig,
    TrainConfig,
)
from partseg.training.job import Job, JobSource, JobValidation, write_job
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.child import LOG, alone, run_child
from pipelines.inputs import Group, KindOfClass, chosen, open_dataset
from pipelines.launch import gpus, training_command
from pipelines.params import Ref, StageParams
from pipelines.pretrained import BACKBONE
from pipelines.vocabulary import FILE as EMBEDDINGS

if TYPE_CHECKING:
    from partseg.models.vlpart import VLPart

VERSION = "1"
JOB = "job.json"


class TrainData(BaseModel):
    """One dataset of a training.

    Attributes:
        origin: the stage that made the dataset; ``from`` in a recipe.
        split: one of its splits.
        annotation: ``box`` = boxes and masks, ``image`` = labels of whole images, ``parsed_part`` = boxes
            written by the parser.
        kind: which categories are classes of this dataset: its parts, its objects or both.
        group: only categories of this group.
        ratio: share of images, relative to the other datasets' ratios.
        batch_size: images per batch.
        federated: grade a batch on its own classes and some others only (LVIS, PACO).
        keep_empty: also use images without annotations.
        repeat_threshold: repeat images with classes rarer than this; 0 repeats none.
        augment: how its images are changed; by default as the stage says.
        use_ignored: also learn from annotations marked to be ignored, as VOC's difficult objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    origin: Ref = Field(alias="from")
    split: str = "train"
    annotation: AnnotationKind = "box"
    kind: KindOfClass = "part"
    group: Group = "all"
    ratio: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=2, ge=1)
    federated: bool = False
    keep_empty: bool = False
    repeat_threshold: float = Field(default=0.0, ge=0, lt=1)
    augment: AugmentConfig | None = None
    use_ignored: bool = False

    @model_validator(mode="after")
    def _label_or_background(self) -> TrainData:
        if self.keep_empty and self.annotation == "image":
            raise ValueError(
                "keep_empty: an image without labels teaches nothing where labels are all there is"
            )
        return self


class Validation(BaseModel):
    """Now and then, mask AP on some images that are not trained on.

    Attributes:
        origin: the stage that made the dataset; ``from`` in a recipe.
        split: one of its splits.
        kind: which categories are looked for.
        group: only categories of this group.
        every: iterations between two validations; there is one more at the end.
        images: only the first so many images of the split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    origin: Ref = Field(alias="from")
    split: str = "val"
    kind: KindOfClass = "part"
    group: Group = "all"
    every: int = Field(ge=1)
    images: int | None = Field(default=None, ge=1)


class Params(StageParams):
    """What to train, on what, how long.

    Attributes:
        model: the detector.
        vocabulary: embeddings of all category names in use.
        init: a trained detector to start from.
        backbone: without ``init``, a stage with pretrained weights for the backbone.
        data: the datasets.
        order: ``weighted`` = with replacement, datasets by their ratios; ``epochs`` = every image once, then
            again.
        schedule: optimiser and learning rate.
        augment: how images are resized and flipped.
        amp: 16-bit type of backbone and pyramid.
        seed: of weights, order and augmentation.
        log_every: iterations per line of metrics.
        validation: measure while training.
        select: the result: the weights of the last iteration, or those with the best validation.
        checkpoint_every: iterations between checkpoints; does not change the result, nor do the next two.
        compile: translate backbone and pyramid with ``torch.compile``.
        recompute: less memory, more time: compute the backbone's activations again in the backward pass.
    """

    model: ModelConfig
    vocabulary: Ref
    init: Ref | None = None
    backbone: Ref | None = None
    data: tuple[TrainData, ...] = Field(min_length=1)
    order: Literal["weighted", "epochs"] = "weighted"
    schedule: ScheduleConfig
    augment: AugmentConfig = AugmentConfig()
    amp: Literal["none", "bf16", "fp16"] = "none"
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    validation: Validation | None = None
    select: Literal["last", "best"] = "last"
    checkpoint_every: int = Field(default=500, ge=1, exclude=True)
    compile: bool = Field(default=False, exclude=True)
    recompute: bool = Field(default=False, exclude=True)

    @model_validator(mode="after")
    def _together(self) -> Params:
        if self.init and self.backbone:
            raise ValueError("give init, a whole detector, or backbone, not both")
        if self.select == "best" and self.validation is None:
            raise ValueError("select: best is measured by a validation; give one")
        if self.validation and not self.model.roi.masks:
            raise ValueError("a validation measures AP of masks, and model.roi.masks is false; leave it out")
        if self.order == "epochs" and len(self.data) != 1:
            raise ValueError("order: epochs goes through one dataset; give one, or order: weighted")
        return self


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Train; interrupted, the next run goes on from the last checkpoint.

    Raises:
        TrainingError: the training cannot go on, and somebody can mend it.
        ChildFailed: a bug in a training process.
    """
    processes = report.launch.here(params.schedule.batches)
    job = job_of(params, inputs, out, report, processes=processes)
    file = report.work / JOB
    write_job(file, job)
    try:
        if processes == 0:
            return _train_here(job, report)
        if report.launch.nodes > 1:
            report.log(_elsewhere(file, processes, report))
        return run_child(training_command(file, processes, report.launch), report.work, report)
    finally:
        _keep_records(report)


def job_of(
    params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext, *, processes: int
) -> Job:
    """The training as a job, which any process that sees the same folders can do.

    Raises:
        RecipeError: a dataset has no category of the kind and group that is asked for.
    """
    return Job(
        train=TrainConfig(
            model=params.model,
            schedule=params.schedule,
            order=params.order,
            augment=params.augment,
            amp=params.amp,
            seed=params.seed,
            log_every=params.log_every,
            select=params.select,
        ),
        sources=tuple(_source(data, inputs[data.origin]) for data in params.data),
        embeddings=inputs[params.vocabulary].path / EMBEDDINGS,
        out=out,
        work=report.work,
        init=inputs[params.init].path if params.init else None,
        backbone_weights=inputs[params.backbone].path / BACKBONE if params.backbone else None,
        cache=default_cache().absolute(),
        validation=_validation(params.validation, inputs),
        runtime=Runtime(
            workers=_readers(report, processes),
            checkpoint_every=params.checkpoint_every,
            compile=params.compile,
            recompute=params.recompute,
        ),
    )


def _source(data: TrainData, artifact: Artifact) -> JobSource:
    dataset = open_dataset(artifact)
    return JobSource(
        dataset=dataset.folder,
        images=_images(dataset),
        split=data.split,
        names=_names(dataset, data.kind, data.group),
        annotation=data.annotation,
        batch_size=data.batch_size,
        ratio=data.ratio,
        federated=data.federated,
        keep_empty=data.keep_empty,
        repeat_threshold=data.repeat_threshold,
        augment=data.augment,
        use_ignored=data.use_ignored,
    )


def _validation(wanted: Validation | None, inputs: Mapping[str, Artifact]) -> JobValidation | None:
    if wanted is None:
        return None
    dataset = open_dataset(inputs[wanted.origin])
    return JobValidation(
        dataset=dataset.folder,
        images=_images(dataset),
        split=wanted.split,
        names=_names(dataset, wanted.kind, wanted.group),
        every=wanted.every,
        limit=wanted.images,
    )


def _images(dataset: Dataset) -> Path:
    assert dataset.image_root is not None, "open_dataset finds the images"
    return dataset.image_root


def _names(dataset: Dataset, kind: KindOfClass, group: Group) -> tuple[str, ...]:
    return tuple(c.name for c in chosen(dataset.categories, kind=kind, group=group))


def _readers(report: StageContext, processes: int) -> int:
    """Reading processes of each training process: the machine's, shared; on a CPU none, as elsewhere."""
    if not report.workers or not gpus():
        return 0
    return max(1, report.workers // max(1, processes))


def _train_here(job: Job, report: StageContext) -> Metrics:
    """Train in this process."""
    from partseg.training.runner import run_job
    from partseg.training.stopping import TrainingStopped

    with alone(report.work, report):
        try:
            return run_job(job, report)
        except TrainingStopped as error:  # Ctrl-C or SIGTERM, which stop more than this stage
            raise KeyboardInterrupt(str(error)) from error


def _elsewhere(job: Path, processes: int, report: StageContext) -> str:
    launch = report.launch
    command = shlex.join(training_command(job, processes, launch, node="NODE"))
    others = "1" if launch.nodes == 2 else f"1 to {launch.nodes - 1}"
    return (
        f"the training waits for {launch.nodes - 1} more machine(s), which see the home folder and the raw "
        f"data under the same paths as this one; start on each, NODE being {others}: "
        f"cd {shlex.quote(str(Path.cwd()))} && {command}"
    )


def _keep_records(report: StageContext) -> None:
    """Copy log and curves to the run's folder: the work folder goes when the stage is done."""
    for name in (LOG, "tensorboard", "throughput.jsonl"):
        path = report.work / name
        if report.records is None or not path.exists():
            continue
        report.records.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        with suppress(OSError):  # nobody loses a training over them
            copy(path, report.records / name)


def load_detector(artifact: Artifact) -> VLPart:
    """The detector a train stage wrote, in evaluation mode, on the best device there is."""
    import torch

    from partseg.models.files import load_model

    return load_model(artifact.path, "cuda" if torch.cuda.is_available() else "cpu")
