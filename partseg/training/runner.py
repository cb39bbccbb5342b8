"""From a job to a training: opens what the job names."""

from __future__ import annotations

import threading
from pathlib import Path

from partseg.layout import Dataset
from partseg.progress import Progress
from partseg.training.config import TrainSource, source
from partseg.training.distributed import Processes
from partseg.training.job import Job, JobSource
from partseg.training.loop import train
from partseg.training.validation import MaskAP
from partseg.vocabulary import EmbeddingTable


def run_job(
    job: Job,
    report: Progress | None = None,
    *,
    processes: Processes | None = None,
    stop: threading.Event | None = None,
) -> dict[str, float | int | str]:
    """Run a job; see :func:`partseg.training.loop.train` for the result, the errors and the arguments."""
    processes = processes or Processes()

    def prepare() -> tuple[list[TrainSource], EmbeddingTable, MaskAP | None]:
        table = EmbeddingTable.load(job.embeddings)
        return [open_source(one, job.cache) for one in job.sources], table, _validation(job, table)

    sources, table, validation = processes.together(prepare)
    return train(
        job.train,
        sources,
        table,
        job.out,
        job.work,
        report,
        init=job.init,
        backbone_weights=job.backbone_weights,
        runtime=job.runtime,
        validation=validation,
        processes=processes,
        stop=stop,
    )


def open_source(one: JobSource, cache: Path | None = None) -> TrainSource:
    """The dataset a job names, opened; see :func:`partseg.training.config.source` for the errors."""
    return source(
        Dataset.open(one.dataset, image_root=one.images, cache=cache),
        one.split,
        names=None if one.names is None else frozenset(one.names),
        annotation=one.annotation,
        batch_size=one.batch_size,
        ratio=one.ratio,
        federated=one.federated,
        keep_empty=one.keep_empty,
        repeat_threshold=one.repeat_threshold,
        augment=one.augment,
        use_ignored=one.use_ignored,
    )


def _validation(job: Job, table: EmbeddingTable) -> MaskAP | None:
    wanted = job.validation
    if wanted is None:
        return None
    return MaskAP(
        Dataset.open(wanted.dataset, image_root=wanted.images, cache=job.cache),
        wanted.split,
        table,
        every=wanted.every,
        names=wanted.names,
        limit=wanted.limit,
        workers=job.runtime.workers,
    )
