"""Checkpoints of a training under way: written whole or not at all, read without running any code.

A folder of checkpoints holds the newest few, named like ``iteration-00000500/``, and ``best/``: the weights
with the best validation, as far as one of the checkpoints remembers them.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from partseg.errors import TrainingError, WeightsError
from partseg.files import replacing_file, sync
from partseg.models.files import read_tensors
from partseg.training.ema import WeightMean
from partseg.training.optimiser import Optimiser

STATE, WEIGHTS, MEAN, OPTIMISER = "state.json", "model.safetensors", "mean.safetensors", "optimiser.pt"
_DAMAGES = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError),
    *(pickle.UnpicklingError, WeightsError),
)
_NAME = re.compile(r"iteration-(\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best validation so far: after how many iterations, and its value."""

    iteration: int
    value: float


@dataclass(slots=True)
class Progressed:
    """What a training has behind it, besides its tensors.

    Attributes:
        iteration: how many iterations are done.
        lines: the lines of ``metrics.jsonl`` so far.
        window: sum and count of each loss since the last line.
        best: the best validation, where the result is chosen by it.
        validation: the value of the last one.
    """

    iteration: int = 0
    lines: list[str] = field(default_factory=list)
    window: dict[str, list[float]] = field(default_factory=dict)
    best: Best | None = None
    validation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one training.

    Random generators need not be saved: a training seeds them anew for every batch.

    Attributes:
        folder: of all of them.
        identity: of the configuration and data; :meth:`resume` refuses another one.
        keep: how many stay.
        model: whose tensors are saved and loaded; so are those of the next two.
        optimiser: with its scaler.
        mean: the running mean of the weights, where there is one.
    """

    folder: Path
    identity: str
    keep: int
    model: nn.Module
    optimiser: Optimiser
    mean: WeightMean | None

    def save(self, progressed: Progressed) -> None:
        """Write a checkpoint and remove all but the last ``keep``.

        Raises:
            TrainingError: it cannot be written; those before it stay.
        """
        with _writing(self.folder):
            self._write(progressed)
            self._remove_old()

    def resume(self) -> Progressed:
        """Load the newest checkpoint that can be read; without any, nothing is changed.

        Raises:
            TrainingError: the checkpoint belongs to another training, or to another version of partseg.
        """
        for path in sorted(_checkpoints(self.folder), reverse=True):
            try:
                state = _state(path)
                weights = read_tensors(path / WEIGHTS)
                means = None if self.mean is None else read_tensors(path / MEAN)
                kept = torch.load(path / OPTIMISER, map_location="cpu", weights_only=True)
                if state.pop("identity") != self.identity:
                    raise TrainingError(
                        "the checkpoints here belong to a training with other settings or data",
                        where=self.folder,
                        fix="remove this folder, or give another one for work in progress",
                    )
                best = state.pop("best")
                progressed = Progressed(**state, best=None if best is None else Best(**best))
            except _DAMAGES:
                continue  # for instance by a full disk: the one before it is as good
            self._load(path, weights, means, kept)
            return progressed
        return Progressed()

    def save_best(self, iteration: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights of an iteration; a checkpoint that remembers them has to follow.

        Raises:
            TrainingError: they cannot be written.
        """
        with _writing(self.folder), replacing_file(self._best(iteration)) as temporary:
            save_file(_on_cpu(weights), temporary)

    def load_best(self, best: Best) -> None:
        """Put the best weights into the model.

        Raises:
            WeightsError: they are missing or damaged.
        """
        self.model.load_state_dict(read_tensors(self._best(best.iteration)))

    def _write(self, progressed: Progressed) -> None:
        final = self.folder / f"iteration-{progressed.iteration:08d}"
        temporary = self.folder / f".{final.name}.part"
        for left in self.folder.glob(".iteration-*.part"):  # of a process that was killed
            shutil.rmtree(left)
        temporary.mkdir(parents=True)
        save_file(_on_cpu(self.model.state_dict()), temporary / WEIGHTS)
        if self.mean is not None:
            save_file(_on_cpu(self.mean.means), temporary / MEAN)
        torch.save(self.optimiser.state_dict(), temporary / OPTIMISER)
        best = progressed.best
        state = {
            "identity": self.identity,
            "iteration": progressed.iteration,
            "lines": progressed.lines,
            "window": progressed.window,
            "best": None if best is None else {"iteration": best.iteration, "value": best.value},
            "validation": progressed.validation,
        }
        (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
        sync(self.folder)

    def _load(
        self, path: Path, weights: dict[str, Tensor], means: dict[str, Tensor] | None, kept: dict[str, Any]
    ) -> None:
        try:
            self.model.load_state_dict(weights)
            self.optimiser.load_state_dict(kept)
            if self.mean is not None and means is not None:
                self.mean.load(means)
        except (KeyError, ValueError, RuntimeError) as error:
            raise TrainingError(
                "the checkpoint does not fit the model", where=path, fix=f"remove it; {error}"
            ) from error

    def _remove_old(self) -> None:
        kept = sorted(_checkpoints(self.folder))
        for old in kept[: -self.keep]:
            shutil.rmtree(old)
        remembered = {self._best(state["best"]["iteration"]) for state in _states(kept[-self.keep :])}
        for path in (self.folder / "best").glob("*.safetensors"):
            if path not in remembered:
                path.unlink()

    def _best(self, iteration: int) -> Path:
        return self.folder / "best" / f"iteration-{iteration:08d}.safetensors"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises a RuntimeError
        raise TrainingError("a checkpoint cannot be written", where=folder, fix=str(error)) from error


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    return state


def _states(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """The states of checkpoints that remember best weights; those that cannot be read remember none."""
    for path in paths:
        try:
            state = _state(path)
        except (OSError, ValueError):
            continue
        if state.get("best") is not None:
            yield state


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("iteration-*") if _NAME.fullmatch(path.name))
