"""What a training measures: losses for the result, times for whoever watches."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from partseg.progress import Progress
from partseg.training.distributed import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """One batch: its number in the iteration, its losses, its images."""

    iteration: int
    batch: int
    losses: dict[str, float]
    images: int


@dataclass(slots=True)
class Window:
    """What happened in this process since :meth:`merged` was called last.

    Attributes:
        learnt: the batches of this process.
        seconds: in iterations.
        waited: of these, waiting for data.
        iterations: how many.
    """

    learnt: list[Learnt] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    iterations: int = 0

    def add(self, learnt: list[Learnt], seconds: float, waited: float) -> None:
        """One more iteration."""
        self.learnt += learnt
        self.seconds += seconds
        self.waited += waited
        self.iterations += 1

    def merged(self, processes: Processes) -> Window:
        """The same of all processes together, batches in the order of their numbers; this one is emptied.

        Times are means over the processes.
        """
        parts = processes.gather(Window(self.learnt, self.seconds, self.waited, self.iterations))
        self.learnt, self.seconds, self.waited, self.iterations = [], 0.0, 0.0, 0
        learnt = [one for part in parts for one in part.learnt]
        return Window(
            learnt=sorted(learnt, key=lambda one: (one.iteration, one.batch)),
            seconds=sum(part.seconds for part in parts) / len(parts),
            waited=sum(part.waited for part in parts) / len(parts),
            iterations=parts[0].iterations,
        )


@dataclass(slots=True)
class Throughput:
    """Seconds and images since the last line of ``throughput.jsonl``."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    iterations: int = 0

    def add(self, window: Window) -> None:
        """More iterations were done."""
        self.images += sum(one.images for one in window.learnt)
        self.seconds += window.seconds
        self.waited += window.waited
        self.iterations += window.iterations

    def values(self, device: torch.device) -> dict[str, float]:
        """Images per second, seconds per iteration, the share of them spent waiting for data, memory."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_second": round(self.images / seconds, 3),
            "seconds_per_iteration": round(seconds / max(1, self.iterations), 4),
            "data_share": round(self.waited / seconds, 4),
            "memory_bytes": peak_memory(device),
        }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most a GPU's tensors took, or the most this process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Events:
    """Curves for people: ``tensorboard`` (where that package is installed) and ``throughput.jsonl``.

    Neither is part of the result, so both may hold times.

    Args:
        folder: where both are written.
        start: iterations that are done; what an interrupted training wrote beyond them is not shown.
        report: told where there is no TensorBoard.
    """

    def __init__(self, folder: Path, start: int, report: Progress) -> None:
        self.folder = folder
        self.writer = _writer(folder / "tensorboard", start, report)

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Points of curves named by the keys."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)

    def throughput(self, iteration: int, values: dict[str, float]) -> None:
        """One line of ``throughput.jsonl``, and the same as curves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "throughput.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps({'iteration': iteration, **values})}\n")
        self.add(iteration, {f"throughput/{name}": value for name, value in values.items()})

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()


def _writer(folder: Path, start: int, report: Progress) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report.log("no curves for TensorBoard: the package tensorboard is not installed")
        return None
    return SummaryWriter(folder, purge_step=start + 1)
