"""Batches for the loop, read by this process or by others."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from functools import partial

from torch.utils.data import DataLoader, Dataset

from partseg.errors import PartsegError
from partseg.models.structures import Batch
from partseg.training.config import AugmentConfig, TrainSource
from partseg.training.data import WORKER_START, Sample, TrainingImages, collate
from partseg.training.sampler import SampleKey, Steps


def load_batches(
    sources: Sequence[TrainSource],
    augment: AugmentConfig,
    steps: Steps,
    *,
    workers: int = 0,
    pin: bool = False,
) -> Generator[Batch, None, None]:
    """The batches of ``steps``, in order; close the iterator to end the workers.

    Args:
        sources: the datasets.
        augment: of the sources that have no own.
        steps: which images, in which order.
        workers: processes that read images; 0 reads them in this one.
        pin: keep images where a GPU can fetch them while it computes.

    Raises:
        PartsegError: an image cannot be read.
    """
    loader: DataLoader[Batch | PartsegError] = DataLoader(
        _Outcomes(TrainingImages(sources, augment)),  # type: ignore[arg-type]
        batch_sampler=steps,
        collate_fn=partial(_collate, sources=sources),
        num_workers=workers,
        multiprocessing_context=WORKER_START if workers else None,
        pin_memory=pin,
        worker_init_fn=_leave_signals if workers else None,
    )
    for outcome in loader:
        if isinstance(outcome, PartsegError):
            raise outcome
        yield outcome


class _Outcomes(Dataset["Sample | PartsegError"]):
    """Samples, or why there is none: an error raised in a worker would arrive as its traceback's text."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def __getitem__(self, key: SampleKey) -> Sample | PartsegError:
        try:
            return self.images[key]
        except PartsegError as error:
            return error


def _collate(outcomes: list[Sample | PartsegError], sources: Sequence[TrainSource]) -> Batch | PartsegError:
    samples = []
    for outcome in outcomes:
        if isinstance(outcome, PartsegError):
            return outcome
        samples.append(outcome)
    return collate(samples, sources)


def _leave_signals(_: int) -> None:
    """A signal to the whole process group means the training. Workers end with it, not before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
