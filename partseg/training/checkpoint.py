"""Checkpoints of a training under way: written whole or not at all, read without running any code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from partseg.errors import TrainingError, WeightsError
from partseg.files import sync
from partseg.models.files import load_weights

STATE, WEIGHTS, OPTIMISER = "state.json", "model.safetensors", "optimiser.pt"
_NAME = re.compile(r"iteration-(\d{8})")


@dataclass(slots=True)
class Progressed:
    """What a training has behind it, besides its tensors.

    Attributes:
        iteration: how many iterations are done.
        lines: the lines of ``metrics.jsonl`` so far.
        window: sum and count of each loss since the last line.
    """

    iteration: int = 0
    lines: list[str] = field(default_factory=list)
    window: dict[str, list[float]] = field(default_factory=dict)


def save(
    folder: Path,
    progressed: Progressed,
    model: nn.Module,
    optimiser: Optimizer,
    scaler: GradScaler,
    *,
    identity: str,
    keep: int,
) -> Path:
    """Write a checkpoint into ``folder`` and remove all but the last ``keep``.

    Random generators need not be saved: a training seeds them anew in every step.

    Args:
        folder: of all checkpoints of this training.
        progressed: where the training is.
        model: whose tensors are saved.
        optimiser: its state is saved.
        scaler: its state is saved.
        identity: of the configuration and data; :func:`resume` refuses another one.
        keep: how many checkpoints stay.
    """
    final = folder / f"iteration-{progressed.iteration:08d}"
    temporary = folder / f".{final.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, temporary / WEIGHTS)
    torch.save({"optimiser": optimiser.state_dict(), "scaler": scaler.state_dict()}, temporary / OPTIMISER)
    state = {
        "identity": identity,
        "iteration": progressed.iteration,
        "lines": progressed.lines,
        "window": progressed.window,
    }
    (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)
    sync(folder)
    for old in sorted(_checkpoints(folder))[:-keep]:
        shutil.rmtree(old)
    return final


def resume(
    folder: Path, model: nn.Module, optimiser: Optimizer, scaler: GradScaler, *, identity: str
) -> Progressed:
    """Load the newest checkpoint that can be read; without any, nothing is changed.

    Raises:
        TrainingError: the checkpoint belongs to another training.
    """
    for path in sorted(_checkpoints(folder), reverse=True):
        try:
            state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
            if state["identity"] != identity:
                raise TrainingError(
                    "the checkpoints here belong to a training with other settings or data",
                    where=folder,
                    fix="remove this folder, or give another one for work in progress",
                )
            kept = torch.load(path / OPTIMISER, map_location="cpu", weights_only=True)
            load_weights(model, path / WEIGHTS)
            optimiser.load_state_dict(kept["optimiser"])
            scaler.load_state_dict(kept["scaler"])
        except TrainingError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, WeightsError):
            continue  # damaged, for instance by a full disk: the one before it is as good
        return Progressed(iteration=state["iteration"], lines=state["lines"], window=state["window"])
    return Progressed()


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("iteration-*") if _NAME.fullmatch(path.name))
