"""The training loop."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import AdamW
from torch.utils.data import DataLoader

from partseg.errors import TrainingError
from partseg.files import write_file
from partseg.models.files import WEIGHTS, ModelCard, Vocabulary, load_weights, save_model
from partseg.models.structures import Batch
from partseg.models.vlpart import VLPart, build_model
from partseg.progress import Progress, Silent
from partseg.training.checkpoint import Progressed, resume, save
from partseg.training.config import Runtime, TrainConfig, TrainSource
from partseg.training.data import WORKER_START, TrainingImages, collate, image_counts, pool
from partseg.training.sampler import Steps
from partseg.vocabulary import EmbeddingTable

METRICS = "metrics.jsonl"
AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStopped(TrainingError):
    """Somebody asked the training to stop. It left a checkpoint and goes on from there when run again."""


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
) -> dict[str, float | int | str]:
    """Train a detector.

    Args:
        config: model, schedule, augmentation, seed.
        sources: the datasets.
        table: an embedding for every category name the sources use.
        out: gets ``model.safetensors``, ``model.json`` and ``metrics.jsonl``.
        work: gets checkpoints; a training that finds its own goes on from the newest one, on the CPU bit for
            bit.
        report: who is told about progress.
        init: folder of a trained model to start from.
        backbone_weights: file of pretrained weights for the backbone, where ``init`` is not given.
        runtime: device, worker processes, checkpoints.

    Returns:
        Iterations, images seen and the mean loss of the last line of metrics.

    Raises:
        TrainingError: the loss is not finite (the batch's image ids are left in ``work``), no image is
            usable, the embeddings do not fit the model, or ``work`` belongs to another training.
        TrainingStopped: the process got SIGTERM.
        WeightsError: starting weights cannot be used, or a category has no embedding.
    """
    report, runtime = report or Silent(), runtime or Runtime()
    if table.dim != config.model.text_dim:
        raise TrainingError(
            f"the embeddings have {table.dim} dimensions, the model wants {config.model.text_dim}"
        )
    device = torch.device(runtime.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _sigterm() as stop:
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        if init is not None:
            load_weights(model, init / WEIGHTS)
        elif backbone_weights is not None:
            model.backbone.bottom_up.load(backbone_weights)
        trainer = _Trainer(config, sources, table, model.to(device), work, runtime, device)
        progressed = trainer.run(report, stop)
    return _finish(config, sources, table, model, out, progressed)


class _Trainer:
    """The state of one training. A class, because a step needs most of it."""

    def __init__(
        self,
        config: TrainConfig,
        sources: Sequence[TrainSource],
        table: EmbeddingTable,
        model: VLPart,
        work: Path,
        runtime: Runtime,
        device: torch.device,
    ) -> None:
        self.config, self.sources, self.model = config, sources, model
        self.work, self.runtime, self.device = work, runtime, device
        self.amp = AMP[config.amp]
        parameters = [p for p in model.parameters() if p.requires_grad]
        schedule = config.schedule
        # Fused: one call for all parameters. The plain loop took 6 % of a small training's step on a CPU.
        self.optimiser = AdamW(
            parameters,
            lr=schedule.learning_rate,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.scaler = GradScaler(device.type, enabled=config.amp == "fp16")
        self.texts = [torch.from_numpy(table.rows(source.names)).to(device) for source in sources]
        self.counts = [torch.from_numpy(image_counts(s)).to(device) if s.federated else None for s in sources]
        self.pools = [pool(source) for source in sources]
        self.identity = _identity(config, sources, self.texts)

    def run(self, report: Progress, stop: threading.Event) -> Progressed:
        """Train to the last iteration, or until ``stop`` is set."""
        config, total = self.config, self.config.schedule.iterations
        progressed = resume(self.work, self.model, self.optimiser, self.scaler, identity=self.identity)
        if progressed.iteration:
            report.log(f"going on from iteration {progressed.iteration}")
        self.model.train()
        steps = Steps(pools=self.pools, seed=config.seed, start=progressed.iteration, stop=total)
        for batch in self._loader(steps):
            losses = self.step(batch, progressed.iteration)
            progressed.iteration += 1
            for name, value in losses.items():
                entry = progressed.window.setdefault(name, [0.0, 0])
                entry[0] += value
                entry[1] += 1
            if progressed.iteration % config.log_every == 0 or progressed.iteration == total:
                self._log(progressed)
            report.update(progressed.iteration, total, f"loss {sum(losses.values()):.3f}")
            last = progressed.iteration == total
            if stop.is_set() or (progressed.iteration % self.runtime.checkpoint_every == 0 and not last):
                self._save(progressed)
            if stop.is_set():
                raise TrainingStopped(
                    f"the training was stopped after iteration {progressed.iteration} of {total}",
                    where=self.work,
                    fix="run it again to go on from its checkpoint",
                )
        return progressed

    def step(self, batch: Batch, iteration: int) -> dict[str, float]:
        """One iteration; returns the losses."""
        # A seed per step makes every random choice a function of (seed, step): nothing to save, nothing to
        # lose.
        torch.manual_seed(_mix(self.config.seed, iteration))
        batch = replace(batch, text=self.texts[batch.source], image_counts=self.counts[batch.source])
        losses = self.model.losses(batch.to(self.device), amp=self.amp)
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        named = dict(zip(losses, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise self._not_finite(named, batch, iteration)
        schedule = self.config.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(iteration)
        self.optimiser.zero_grad(set_to_none=True)
        total: Tensor = torch.stack(list(losses.values())).sum()
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        if schedule.gradient_clip is not None:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), schedule.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return named

    def _loader(self, steps: Steps) -> DataLoader[Batch]:
        return DataLoader(
            TrainingImages(self.sources, self.config.augment),  # type: ignore[arg-type]
            batch_sampler=steps,
            collate_fn=partial(collate, sources=self.sources),
            num_workers=self.runtime.workers,
            multiprocessing_context=WORKER_START if self.runtime.workers else None,
        )

    def _log(self, progressed: Progressed) -> None:
        losses = {name: total / count for name, (total, count) in progressed.window.items()}
        rate = self.config.schedule.rate(progressed.iteration - 1)
        line = {"iteration": progressed.iteration, "lr": rate, "loss": sum(losses.values()), **losses}
        progressed.lines.append(json.dumps(line))
        progressed.window.clear()

    def _save(self, progressed: Progressed) -> None:
        save(
            self.work,
            progressed,
            self.model,
            self.optimiser,
            self.scaler,
            identity=self.identity,
            keep=self.runtime.keep,
        )

    def _not_finite(self, losses: dict[str, float], batch: Batch, iteration: int) -> TrainingError:
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "not_finite.json"
        found = {
            "iteration": iteration,
            "losses": {name: str(value) for name, value in losses.items()},
            "split": repr(self.sources[batch.source].split),
            "image_ids": list(batch.image_ids),
        }
        path.write_text(json.dumps(found, indent=2), encoding="utf-8")
        return TrainingError(
            f"the loss is not finite at iteration {iteration}",
            where=path,
            fix="look at the images named there, or lower the learning rate",
        )


def _finish(
    config: TrainConfig,
    sources: Sequence[TrainSource],
    table: EmbeddingTable,
    model: VLPart,
    out: Path,
    progressed: Progressed,
) -> dict[str, float | int | str]:
    out.mkdir(parents=True, exist_ok=True)
    names = tuple(dict.fromkeys(name for source in sources for name in source.names))
    vocabulary = Vocabulary(names=names, encoder=table.encoder, template=table.template)
    write_file(out / METRICS, "".join(f"{line}\n" for line in progressed.lines).encode())
    card = ModelCard(config=config.model, vocabulary=vocabulary, iterations=progressed.iteration)
    save_model(out, model, card)
    return {"iterations": progressed.iteration, "loss": json.loads(progressed.lines[-1])["loss"]}


def _identity(config: TrainConfig, sources: Sequence[TrainSource], texts: Sequence[Tensor]) -> str:
    """A digest of everything that decides the course of a training."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    for source, text in zip(sources, texts, strict=True):
        entry = source.split.entry
        digest.update(repr((source.split.name, source.names, source.annotation, entry)).encode())
        digest.update(repr((source.batch_size, source.ratio, source.federated, source.keep_empty)).encode())
        digest.update(text.cpu().numpy().tobytes())
    return digest.hexdigest()


def _mix(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "big") >> 1


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that is set when the process is asked to end. Signals only reach the main thread."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
