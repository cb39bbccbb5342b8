"""One update of the weights: batches forward and backward, gradients averaged, the optimiser's step."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from partseg.errors import PartsegError
from partseg.models.structures import Batch
from partseg.models.vlpart import VLPart
from partseg.training.config import Runtime, TrainConfig, TrainSource
from partseg.training.data import image_counts
from partseg.training.distributed import Processes, RunningStatistics, average_gradients
from partseg.training.ema import WeightMean
from partseg.training.metrics import Learnt
from partseg.training.optimiser import AMP, Optimiser
from partseg.vocabulary import EmbeddingTable


@dataclass(slots=True)
class Answer:
    """What one process has to say about its part of an iteration.

    Attributes:
        learnt: its batches.
        not_finite: what to save about each batch whose loss is not finite.
        error: why a batch could not be read.
        waited: seconds of waiting for data.
    """

    learnt: list[Learnt] = field(default_factory=list)
    not_finite: list[dict[str, Any]] = field(default_factory=list)
    error: PartsegError | None = None
    waited: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the training cannot go on."""
        return bool(self.not_finite) or self.error is not None

    @property
    def loss(self) -> float:
        """Mean over the batches of the sum of their losses."""
        return sum(sum(one.losses.values()) for one in self.learnt) / max(1, len(self.learnt))


class Learner:
    """A model and what changes its weights.

    Args:
        config: of the training.
        sources: the datasets.
        table: an embedding for every category name the sources use.
        model: on its device.
        processes: those that share the batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        sources: Sequence[TrainSource],
        table: EmbeddingTable,
        model: VLPart,
        processes: Processes,
    ) -> None:
        self.seed, self.batches, self.amp = config.seed, config.schedule.batches, AMP[config.amp]
        self.sources, self.model, self.processes = sources, model, processes
        self.device = model.pixel_mean.device
        self.optimiser = Optimiser(model, config.schedule, scaled=config.amp == "fp16")
        self.statistics = RunningStatistics(model)
        self.mean = WeightMean(model, config.schedule.ema) if config.schedule.ema is not None else None
        self.texts = [torch.from_numpy(table.rows(s.names)).to(self.device) for s in sources]
        self.counts = [
            torch.from_numpy(image_counts(s)).to(self.device) if s.federated else None for s in sources
        ]

    def learn(self, batches: Iterator[Batch], iteration: int, stop: threading.Event) -> Answer:
        """Forward and backward of this process's batches; given up between two of them on ``stop``."""
        answer = Answer()
        values: list[Tensor] = []
        seen: list[tuple[int, Batch, list[str]]] = []
        self.optimiser.clear()
        self.statistics.begin()
        for number in self.processes.share_of(self.batches):
            waiting = time.perf_counter()
            try:
                batch = None if stop.is_set() else next(batches)
            except PartsegError as error:
                answer.error = error
                return answer
            except RuntimeError:  # whoever stopped this process may have ended its workers, too
                if not stop.is_set():
                    raise
                batch = None
            answer.waited += time.perf_counter() - waiting
            if batch is None:
                break
            losses = self._losses(batch, iteration, number)
            self.optimiser.backward(torch.stack(list(losses.values())).sum() / self.batches)
            values.append(torch.stack([loss.detach().float() for loss in losses.values()]))
            seen.append((number, batch, list(losses)))
        # Read once per iteration: a GPU has to be waited for.
        numbers = iter(torch.cat(values).tolist() if values else [])
        for number, batch, names in seen:
            named = {name: next(numbers) for name in names}
            learnt = Learnt(iteration=iteration, batch=number, losses=named, images=len(batch.images))
            answer.learnt.append(learnt)
            if not all(map(math.isfinite, named.values())):
                answer.not_finite.append(self._details(batch, learnt))
        return answer

    def update(self, iteration: int) -> None:
        """The weights after an iteration, the same in all processes."""
        average_gradients(self.optimiser.parameters, self.processes)
        self.statistics.end(self.batches, self.processes)
        self.optimiser.update(iteration)
        if self.mean is not None:
            self.mean.update()

    def give_up(self) -> None:
        """Instead of :meth:`update`: the model is what it was before the iteration."""
        self.statistics.rewind()

    def _losses(self, batch: Batch, iteration: int, number: int) -> dict[str, Tensor]:
        # A seed per batch makes every random choice a function of (seed, iteration, batch): nothing to save,
        # nothing to lose, and no matter which process does it.
        torch.manual_seed(_mix(self.seed, iteration, number))
        batch = replace(batch, text=self.texts[batch.source], image_counts=self.counts[batch.source])
        self.statistics.rewind()
        losses = self.model.losses(batch.to(self.device), amp=self.amp)
        self.statistics.collect()
        return losses

    def _details(self, batch: Batch, learnt: Learnt) -> dict[str, Any]:
        return {
            "iteration": learnt.iteration,
            "batch": learnt.batch,
            "split": repr(self.sources[batch.source].split),
            "image_ids": list(batch.image_ids),
            "losses": {name: str(value) for name, value in learnt.losses.items()},
        }


def prepare_model(model: VLPart, runtime: Runtime) -> None:
    """Have a model's backbone computed as the runtime says. The names of its tensors stay.

    Raises:
        RecipeError: the backbone cannot compute its activations again.
    """
    if runtime.recompute:
        model.backbone.bottom_up.recompute_activations(True)
    if runtime.compile:
        model.backbone.compile(dynamic=True)


def _mix(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()[:8], "big") >> 1
