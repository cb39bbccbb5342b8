"""``python -m partseg.training job.json``: one training, described by one file.

For trainings in a process of their own: on another machine, or where a scheduler starts and stops them
(SIGTERM leaves a checkpoint; the same command goes on from it).
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from partseg.errors import PartsegError, TrainingError
from partseg.layout import Dataset
from partseg.training.config import AnnotationKind, Runtime, TrainConfig, source
from partseg.training.loop import train
from partseg.vocabulary import EmbeddingTable


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSource(_Strict):
    """One dataset of a job; see :func:`partseg.training.config.source`."""

    dataset: Path
    images: Path
    split: str = "train"
    names: tuple[str, ...] | None = None
    annotation: AnnotationKind = "part"
    batch_size: int = 2
    ratio: float = 1.0
    federated: bool = False
    keep_empty: bool = False


class Job(_Strict):
    """A training: what, from what, to where. Paths are as seen from the working directory."""

    train: TrainConfig
    sources: tuple[JobSource, ...]
    embeddings: Path
    out: Path
    work: Path
    init: Path | None = None
    backbone_weights: Path | None = None
    cache: Path | None = None
    runtime: Runtime = Runtime()


class _Lines:
    """Progress as lines on standard error, about a hundred of them."""

    def update(self, done: int, total: int, message: str = "") -> None:
        if done == total or done % max(1, total // 100) == 0:
            self.log(f"{done}/{total} {message}")

    def log(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")


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
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        raise TrainingError("the job file does not describe a training", where=path, fix=faults) from error


def run(job: Job) -> dict[str, float | int | str]:
    """Run a job; see :func:`partseg.training.loop.train` for the errors."""
    sources = [
        source(
            Dataset.open(one.dataset, image_root=one.images, cache=job.cache),
            one.split,
            names=None if one.names is None else frozenset(one.names),
            annotation=one.annotation,
            batch_size=one.batch_size,
            ratio=one.ratio,
            federated=one.federated,
            keep_empty=one.keep_empty,
        )
        for one in job.sources
    ]
    table = EmbeddingTable.load(job.embeddings)
    return train(
        job.train,
        sources,
        table,
        job.out,
        job.work,
        _Lines(),
        init=job.init,
        backbone_weights=job.backbone_weights,
        runtime=job.runtime,
    )


def main(arguments: list[str]) -> int:
    """Run the job named on the command line; 2 tells that a person can mend what went wrong."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m partseg.training job.json\n")
        return 2
    try:
        run(read_job(Path(arguments[0])))
    except PartsegError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
