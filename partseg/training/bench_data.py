"""How fast training images come, and where the time goes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from partseg.errors import TrainingError
from partseg.training.config import AugmentConfig, TrainSource
from partseg.training.data import TrainingImages, collate, pool
from partseg.training.loading import load_batches
from partseg.training.sampler import Steps

PARTS = ("read", "resize", "strong", "target", "collate", "unfold")
"""Read and decode the file; resize and mirror; change colours; boxes and masks. Then a batch is put together,
and its masks are unfolded for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpeed:
    """How fast a number of workers delivers.

    Attributes:
        workers: processes; 0 is the training itself.
        images_per_second: at the end of the queue, masks still as runs.
        worker_memory: bytes that a worker has for itself, mean; None without workers or on a system without
            ``/proc``.
    """

    workers: int
    images_per_second: float
    worker_memory: int | None


def time_parts(
    sources: Sequence[TrainSource], augment: AugmentConfig, *, images: int, seed: int = 0
) -> dict[str, float]:
    """Seconds per image of each of :data:`PARTS`, in this process, on at least ``images`` images.

    Raises:
        TrainingError: no image is usable.
    """
    dataset, steps = TrainingImages(sources, augment), _steps(sources, seed)
    spent, count, cpu = dict.fromkeys(PARTS, 0.0), 0, torch.device("cpu")
    dataset[steps.batch(0, 0)[0]]  # opens the files
    for keys in steps:
        samples = []
        for key in keys:
            last = time.perf_counter()

            def mark(part: str) -> None:
                nonlocal last
                last, before = time.perf_counter(), last
                spent[part] += last - before

            samples.append(dataset.sample(key, mark))
        start = time.perf_counter()
        batch = collate(samples, sources)
        put = time.perf_counter()
        batch.to(cpu)
        spent["collate"] += put - start
        spent["unfold"] += time.perf_counter() - put
        count += len(keys)
        if count >= images:
            break
    return {part: seconds / count for part, seconds in spent.items()}


def measure_loader(
    sources: Sequence[TrainSource], augment: AugmentConfig, *, workers: int, images: int, seed: int = 0
) -> LoaderSpeed:
    """Images per second of the loader that a training uses, after its queues have filled.

    Raises:
        TrainingError: no image is usable.
        SourceError: an image cannot be read.
    """
    batches = load_batches(sources, augment, _steps(sources, seed), workers=workers)
    try:
        for _ in range(1 + 3 * workers):  # torch has each worker two batches ahead
            next(batches)
        count, start = 0, time.perf_counter()
        while count < images:
            count += len(next(batches).images)
        seconds = time.perf_counter() - start
        own = [private_memory(child.pid) for child in multiprocessing.active_children() if child.pid]
        known = [size for size in own if size is not None]
        memory = sum(known) // len(known) if workers and known else None
    finally:
        batches.close()
    return LoaderSpeed(workers=workers, images_per_second=count / seconds, worker_memory=memory)


def private_memory(pid: int | str) -> int | None:
    """Bytes that a process has changed in mappings of its own; None where ``/proc`` does not say.

    Pages of files as they lie on disk do not count: the system drops them at will.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    total, own = 0, False
    for words in map(str.split, lines):
        if not words[0].endswith(":"):
            own = words[1][3] == "p"  # not a file or queue that is shared on purpose
        elif own and words[0] == "Private_Dirty:":
            total += 1024 * int(words[1])
    return total


def _steps(sources: Sequence[TrainSource], seed: int) -> Steps:
    if not sources:
        raise TrainingError("there is nothing to read")
    return Steps([pool(source) for source in sources], order="weighted", seed=seed, start=0, stop=10**9)
