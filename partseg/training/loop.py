"""The training loop."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from partseg.errors import TrainingError
from partseg.files import write_file
from partseg.models.checkpoints import load_backbone
from partseg.models.files import WEIGHTS, ModelCard, Vocabulary, load_weights, save_model
from partseg.models.vlpart import VLPart, build_model
from partseg.progress import Progress, Silent
from partseg.training.checkpoint import Best, Checkpoints
from partseg.training.config import Runtime, TrainConfig, TrainSource
from partseg.training.data import pool
from partseg.training.distributed import Processes
from partseg.training.iteration import Answer, Learner, prepare_model
from partseg.training.loading import load_batches
from partseg.training.metrics import Events, Throughput, Window
from partseg.training.sampler import Steps
from partseg.training.stopping import TrainingStopped, stop_requests
from partseg.training.validation import Validation
from partseg.vocabulary import EmbeddingTable

METRICS, NOT_FINITE = "metrics.jsonl", "not_finite.json"
LOG_INTERVAL = 60.0
"""Seconds between two lines of the log about speed."""


def train(
    config: TrainConfig,
    sources: Sequence[TrainSource],
    table: EmbeddingTable,
    out: Path,
    work: Path,
    report: Progress | None = None,
    *,
    init: Path | None = None,
    backbone_weights: Path | None = None,
    runtime: Runtime | None = None,
    validation: Validation | None = None,
    processes: Processes | None = None,
    stop: threading.Event | None = None,
) -> dict[str, float | int | str]:
    """Train a detector.

    Args:
        config: model, schedule, augmentation, seed.
        sources: the datasets.
        table: an embedding for every category name the sources use.
        out: gets ``model.safetensors``, ``model.json`` and ``metrics.jsonl``.
        work: gets checkpoints and curves; a training that finds its own checkpoints goes on from the newest
            one. On the CPU the end is the same bit for bit, with another number of processes up to rounding.
        report: who is told about progress.
        init: folder of a trained model to start from.
        backbone_weights: file of pretrained weights for the backbone, where ``init`` is not given.
        runtime: device, worker processes, checkpoints.
        validation: measured now and then, and at the end.
        processes: those that share the work; this one alone where not given. All call this function alike,
            and see the same folders.
        stop: ends the training when it is set; where not given, SIGTERM and SIGINT do.

    Returns:
        Iterations and the mean loss of the last line of metrics; with a validation, its last value, and the
        best one where that decides.

    Raises:
        TrainingError: the loss is not finite (the batch's image ids are left in ``work``), no image is
            usable, the embeddings do not fit the model, the processes cannot share the batches of an
            iteration, or ``work`` belongs to another training.
        TrainingStopped: the training was asked to stop; it left a checkpoint.
        WeightsError: starting weights cannot be used, or a category has no embedding.
        PartsegError: an image cannot be read.
    """
    report, runtime, processes = report or Silent(), runtime or Runtime(), processes or Processes()
    if table.dim != config.model.text_dim:
        raise TrainingError(
            f"the embeddings have {table.dim} dimensions, the model wants {config.model.text_dim}"
        )
    if config.select == "best" and validation is None:
        raise TrainingError("nothing tells which weights are the best", fix="add a validation")
    device = processes.together(lambda: _device(runtime, processes))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        asked = stop or stack.enter_context(stop_requests())

        def prepare() -> _Trainer:
            torch.manual_seed(config.seed)
            model = build_model(config.model)
            if init is not None:
                load_weights(model, init / WEIGHTS)
            elif backbone_weights is not None:
                load_backbone(model.backbone.bottom_up, backbone_weights, pixel_std=config.model.pixel_std)
            prepare_model(model, runtime)
            task = _Task(config, sources, table, work, runtime, validation, processes, asked, report)
            return _Trainer(task, model.to(device))

        trainer = processes.together(prepare)
        trainer.run()
        trainer.finish(out)
        return processes.share(trainer.summary())


@dataclass(frozen=True, slots=True)
class _Task:
    """What :func:`train` was called with."""

    config: TrainConfig
    sources: Sequence[TrainSource]
    table: EmbeddingTable
    work: Path
    runtime: Runtime
    validation: Validation | None
    processes: Processes
    stop: threading.Event
    report: Progress


class _Trainer:
    """The state of one training: what is due after an iteration needs most of it."""

    def __init__(self, task: _Task, model: VLPart) -> None:
        self.task, self.model, self.processes = task, model, task.processes
        self.total = task.config.schedule.iterations
        self.learner = Learner(task.config, task.sources, task.table, model, task.processes)
        self.checkpoints = Checkpoints(
            folder=task.work,
            identity=_identity(task, self.learner.texts),
            keep=task.runtime.keep,
            model=model,
            optimiser=self.learner.optimiser,
            mean=self.learner.mean,
        )
        self.progressed = self.checkpoints.resume()
        self.steps = Steps(
            pools=[pool(source) for source in task.sources],
            order=task.config.order,
            seed=task.config.seed,
            start=self.progressed.iteration,
            stop=self.total,
            batches=task.config.schedule.batches,
            rank=task.processes.rank,
            world=task.processes.world,
        )
        self.saved = self.progressed.iteration
        self.window, self.throughput = Window(), Throughput()
        self.speed, self.told = "", 0.0

    def run(self) -> None:
        """Train to the last iteration, or until somebody asks to stop."""
        task, progressed = self.task, self.progressed
        self._same_start()
        if progressed.iteration:
            task.report.log(f"going on from iteration {progressed.iteration}")
        events = None if self.processes.rank else Events(task.work, progressed.iteration, task.report)
        loader = load_batches(
            *(task.sources, task.config.augment, self.steps),
            workers=task.runtime.workers,
            pin=self.learner.device.type == "cuda",
        )
        self.model.train()
        with closing(loader) as batches, events or nullcontext():
            while progressed.iteration < self.total:
                started = time.perf_counter()
                answer = self.learner.learn(batches, progressed.iteration, task.stop)
                stopped, failed = self.processes.any(task.stop.is_set(), answer.failed)
                if failed:
                    self._fail(answer)
                if stopped:
                    self.learner.give_up()
                    self._stop()
                self.learner.update(progressed.iteration)
                progressed.iteration += 1
                self.window.add(answer.learnt, time.perf_counter() - started, answer.waited)
                task.report.update(progressed.iteration, self.total, f"loss {answer.loss:.3f}{self.speed}")
                self._after(events)

    def finish(self, out: Path) -> None:
        """Write the result."""
        self._first(lambda: self._write_result(out))

    def _write_result(self, out: Path) -> None:
        progressed, iterations = self.progressed, self.progressed.iteration
        out.mkdir(parents=True, exist_ok=True)
        names = tuple(dict.fromkeys(name for source in self.task.sources for name in source.names))
        table = self.task.table
        vocabulary = Vocabulary(names=names, encoder=table.encoder, template=table.template)
        write_file(out / METRICS, "".join(f"{line}\n" for line in progressed.lines).encode())
        if progressed.best is not None:
            self.checkpoints.load_best(progressed.best)
            iterations = progressed.best.iteration
        card = ModelCard(config=self.task.config.model, vocabulary=vocabulary, iterations=iterations)
        with self._result() if progressed.best is None else nullcontext():
            save_model(out, self.model, card)

    def summary(self) -> dict[str, float | int | str]:
        """The numbers that matter most, in process 0."""
        progressed, validation = self.progressed, self.task.validation
        losses = [line["loss"] for line in map(json.loads, progressed.lines) if "loss" in line]
        found = {"iterations": progressed.iteration, **({"loss": losses[-1]} if losses else {})}
        if validation is not None and progressed.validation is not None:
            found[validation.name] = progressed.validation
        if progressed.best is not None:
            found |= {"best": progressed.best.value, "best_iteration": progressed.best.iteration}
        return found

    def _after(self, events: Events | None) -> None:
        """What is due after an iteration: a line of metrics, a validation, a checkpoint."""
        done, validation = self.progressed.iteration, self.task.validation
        if done % self.task.config.log_every == 0 or done == self.total:
            self._collect()
            if events is not None:
                self._write_line(events)
        better = False
        if validation is not None and (done % validation.every == 0 or done == self.total):
            better = self._validate(validation, events)
        if better or (done % self.task.runtime.checkpoint_every == 0 and done < self.total):
            self._save()

    def _collect(self) -> None:
        """Add what all processes measured to the line of metrics that is under way."""
        window = self.window.merged(self.processes)
        self.throughput.add(window)
        for learnt in window.learnt:
            for name, value in learnt.losses.items():
                entry = self.progressed.window.setdefault(name, [0.0, 0])
                entry[0] += value
                entry[1] += 1

    def _write_line(self, events: Events) -> None:
        progressed = self.progressed
        losses = {name: total / count for name, (total, count) in progressed.window.items()}
        rate = self.task.config.schedule.rate(progressed.iteration - 1)
        values = {"lr": rate, "loss": sum(losses.values()), **losses}
        progressed.lines.append(json.dumps({"iteration": progressed.iteration, **values}))
        progressed.window.clear()
        events.add(progressed.iteration, values)
        speed = self.throughput.values(self.learner.device)
        events.throughput(progressed.iteration, speed)
        self.throughput = Throughput()
        self.speed = f", {speed['images_per_second']:.1f} images/s"
        if progressed.iteration == self.total or time.monotonic() - self.told > LOG_INTERVAL:
            self.told = time.monotonic()
            self.task.report.log(
                f"iteration {progressed.iteration}: loss {values['loss']:.3f}{self.speed}, "
                f"{speed['data_share']:.0%} of the time waiting for data, "
                f"{speed['memory_bytes'] / 2**30:.1f} GiB"
            )

    def _validate(self, validation: Validation, events: Events | None) -> bool:
        """Measure; whether these are the best weights so far, where the best are wanted."""
        progressed, best = self.progressed, self.progressed.best
        with self._result():
            value = validation(self.model, self.processes)
            better = self.task.config.select == "best" and (best is None or value > best.value)
            if better:
                self._first(lambda: self.checkpoints.save_best(progressed.iteration, self.model.state_dict()))
        progressed.validation = value
        if better:
            progressed.best = Best(iteration=progressed.iteration, value=value)
        progressed.lines.append(json.dumps({"iteration": progressed.iteration, validation.name: value}))
        if events is not None:
            events.add(progressed.iteration, {validation.name: value})
        self.task.report.log(f"iteration {progressed.iteration}: {validation.name} {value:.4f}")
        return better

    def _result(self) -> AbstractContextManager[None]:
        """The weights that would be the result now are those of the model meanwhile."""
        return nullcontext() if self.learner.mean is None else self.learner.mean.in_place()

    def _save(self) -> None:
        self._collect()
        self._first(lambda: self.checkpoints.save(self.progressed))
        self.saved = self.progressed.iteration

    def _first(self, work: Callable[[], None]) -> None:
        """Have process 0 do it; the others wait, and fail with it."""
        self.processes.together(work if not self.processes.rank else lambda: None)

    def _stop(self) -> NoReturn:
        if self.saved != self.progressed.iteration:
            self._save()
        raise TrainingStopped(
            f"the training was stopped after iteration {self.progressed.iteration} of {self.total}",
            where=self.task.work,
            fix="run it again to go on from its checkpoint",
        )

    def _fail(self, answer: Answer) -> NoReturn:
        """Raise, in every process, what went wrong in one of them."""
        answers = self.processes.gather(Answer(not_finite=answer.not_finite, error=answer.error))
        if error := next((one.error for one in answers if one.error is not None), None):
            raise error
        found = min((one for a in answers for one in a.not_finite), key=lambda one: int(one["batch"]))
        path = self.task.work / NOT_FINITE
        if not self.processes.rank:
            write_file(path, json.dumps(found, indent=2).encode())
        raise TrainingError(
            f"the loss is not finite at iteration {found['iteration']}",
            where=path,
            fix="look at the images named there, or lower the learning rate",
        )

    def _same_start(self) -> None:
        """All processes start from the weights of process 0, and from the same checkpoint."""
        iterations = sorted(set(self.processes.gather(self.progressed.iteration)))
        if len(iterations) > 1:
            raise TrainingError(
                f"the processes find different checkpoints, of iterations {iterations}",
                where=self.task.work,
                fix="give them a folder for work in progress that all machines share",
            )
        self.processes.broadcast_(list(self.model.state_dict().values()))


def _device(runtime: Runtime, processes: Processes) -> torch.device:
    name = runtime.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cuda":
        return torch.device(name)
    if processes.local_rank >= (count := torch.cuda.device_count()):
        raise TrainingError(
            f"process {processes.local_rank + 1} of this machine has no GPU, there are {count}",
            fix=f"start {count or 1} per machine, or choose the device cpu",
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)


def _identity(task: _Task, texts: Sequence[Tensor]) -> str:
    """A digest of everything that decides the course of a training; the number of processes does not."""
    digest = hashlib.sha256(task.config.model_dump_json().encode())
    for source, text in zip(task.sources, texts, strict=True):
        digest.update(repr((source.split.name, source.names, source.annotation, source.split.entry)).encode())
        digest.update(repr((source.batch_size, source.ratio, source.federated, source.keep_empty)).encode())
        digest.update(repr((source.repeat_threshold, source.augment, source.use_ignored)).encode())
        digest.update(text.cpu().numpy().tobytes())
    if task.validation is not None:
        digest.update(task.validation.identity.encode())
    return digest.hexdigest()
