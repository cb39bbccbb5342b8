"""A training as one file: what to train, from what, to where. Nothing here imports torch.

Whoever starts a training in a process of its own writes the file, ``python -m partseg.training`` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partseg.errors import TrainingError
from partseg.files import write_file
from partseg.training.config import AnnotationKind, AugmentConfig, Count, Positive, Runtime, TrainConfig
from partseg.validation import faults


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSource(_Strict):
    """One dataset of a job; see :func:`partseg.training.config.source`.

    Attributes:
        dataset: folder in the common layout.
        images: where its images are.
        split: one of its splits.
        names: the categories that are used; None means all.
    """

    dataset: Path
    images: Path
    split: str = "train"
    names: tuple[str, ...] | None = None
    annotation: AnnotationKind = "box"
    batch_size: Count = 2
    ratio: Positive = 1.0
    federated: bool = False
    keep_empty: bool = False
    repeat_threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    augment: AugmentConfig | None = None
    use_ignored: bool = False


class JobValidation(_Strict):
    """Mask AP on some images, now and then.

    Attributes:
        dataset: folder in the common layout.
        images: where its images are.
        split: one of its splits.
        names: the categories that are looked for; None means all.
        every: iterations between two validations; there is one more at the end.
        limit: only the first so many images of the split.
    """

    dataset: Path
    images: Path
    split: str = "val"
    names: tuple[str, ...] | None = None
    every: Count
    limit: Count | None = None


class Job(_Strict):
    """A training. Paths are as seen from the working directory of its processes, which share all of them.

    Attributes:
        train: model, schedule, seed.
        sources: the datasets.
        embeddings: file of the text embeddings of every category that is used.
        out: folder for the result.
        work: folder for checkpoints and what else is only of use while the training runs.
        init: folder of a trained model to start from.
        backbone_weights: file of pretrained weights, where ``init`` is not given.
        cache: folder for the memory-mapped form of datasets; None takes the default.
        validation: on what to measure while training.
        runtime: device, worker processes, checkpoints.
    """

    train: TrainConfig
    sources: Annotated[tuple[JobSource, ...], Field(min_length=1)]
    embeddings: Path
    out: Path
    work: Path
    init: Path | None = None
    backbone_weights: Path | None = None
    cache: Path | None = None
    validation: JobValidation | None = None
    runtime: Runtime = Runtime()


def read_job(path: Path) -> Job:
    """Read a job file.

    Raises:
        TrainingError: the file is missing or does not describe a training.
    """
    try:
        return Job.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TrainingError("the job file cannot be read", where=path, fix=str(error)) from error
    except ValidationError as error:
        raise TrainingError(
            "the job file does not describe a training", where=path, fix=faults(error)
        ) from error


def write_job(path: Path, job: Job) -> None:
    """Write a job file; it appears whole or not at all."""
    write_file(path, f"{job.model_dump_json(indent=2)}\n".encode())
