"""Models from any file, and files the original code can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from partseg.errors import WeightsError
from partseg.files import replacing_file
from partseg.models.checkpoints.architecture import Architecture, recognise
from partseg.models.checkpoints.names import ASIDE, COUNTER, aside
from partseg.models.checkpoints.read import Checkpoint, read_checkpoint
from partseg.models.checkpoints.report import ImportReport, account, compare
from partseg.models.config import ModelConfig
from partseg.models.files import CARD, WEIGHTS, ModelCard, read_card, save_model
from partseg.models.vlpart import VLPart, build_model
from partseg.validation import faults

ORIGINAL = "original.safetensors"
"""Beside an imported model: the tensors of the original file that the model itself does not need."""

CARD_ENTRY = "partseg_model"
"""Where an exported .pth carries our ``model.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model from a file.

    Attributes:
        model: in evaluation mode.
        card: what it is.
        report: what became of the file's tensors.
        extras: tensors of the file that the model does not need, by their original names.
    """

    model: VLPart
    card: ModelCard
    report: ImportReport
    extras: Mapping[str, Tensor] = field(default_factory=dict)


def load_any(
    path: Path, config: ModelConfig | None = None, *, device: torch.device | str = "cpu"
) -> LoadedModel:
    """Build the detector a file holds and load it.

    Args:
        path: a model folder, a .safetensors file, or a .pth of the original VLPart.
        config: what to build; by default what the file says or looks like.
        device: where the model goes.

    Raises:
        WeightsError: the file is missing, damaged, holds more than data, is of another network (it says
            which), or does not fit ``config`` exactly.
        RecipeError: ``config`` cannot be built.
    """
    checkpoint, card = _open(path)
    found = recognise(_shapes(checkpoint.tensors))
    if config is None:
        config = card.config if card else found.config
    if config is None:
        raise _no_detector(checkpoint, found)
    card = card.model_copy(update={"config": config}) if card else ModelCard(config=config)
    model = _build(config, path)
    report, extras = load_detector(model, checkpoint, found)
    report.check()
    return LoadedModel(model=model.to(device).eval(), card=card, report=report, extras=extras)


def load_detector(
    model: VLPart, checkpoint: Checkpoint, found: Architecture | None = None
) -> tuple[ImportReport, dict[str, Tensor]]:
    """Load the tensors that fit.

    Args:
        model: a detector; only tensors of the right name and shape are replaced.
        checkpoint: of a detector.
        found: what the checkpoint was recognised as.

    Returns:
        What became of every tensor, and those that were left aside, by their names in the file.
    """
    wanted = model.state_dict()
    given = dict(checkpoint.tensors)
    reasons = {name: why for name in given if name not in wanted and (why := aside(name, ASIDE)) is not None}
    extras = {name: given.pop(name) for name in reasons}
    found = found or recognise(_shapes(checkpoint.tensors))
    match = compare(wanted, given, optional=COUNTER)
    report = account(checkpoint.path, found.words, match, aside=reasons)
    model.load_state_dict({name: given[name] for name in report.loaded}, strict=False)
    return report, extras


def original_tensors(model: VLPart, extras: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model's tensors as the original code would save them.

    Args:
        model: a detector.
        extras: tensors of the original the model does not have, for instance ``zs_weight``; what can be
            computed is added where it is not among them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if type(module).__name__.startswith("FrozenBatchNorm"):
            tensors.setdefault(f"{name}.{COUNTER}", torch.tensor(0))
    for name, buffer in model.named_buffers():
        if name.endswith(".relative_position_index"):
            tensors.setdefault(name, buffer.detach().cpu().contiguous())
    return tensors | dict(extras or {})


def export_vlpart(
    model: VLPart,
    path: Path,
    *,
    card: ModelCard | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a .pth that the original VLPart, or plain ``torch.load``, can read.

    Args:
        model: a detector.
        path: the file to write or replace.
        card: also kept in the file, as text.
        extras: see :func:`original_tensors`.
    """
    content: dict[str, Any] = {"model": original_tensors(model, extras), "__author__": "partseg"}
    if card is not None:
        content[CARD_ENTRY] = card.model_dump_json()
    with replacing_file(path) as temporary:
        torch.save(content, temporary)


def import_model(path: Path, folder: Path, config: ModelConfig | None = None) -> LoadedModel:
    """Turn any file into a model folder.

    Args:
        path: as for :func:`load_any`.
        folder: made where it does not exist; must not hold a model yet.
        config: as for :func:`load_any`.

    Raises:
        WeightsError: as :func:`load_any`, or the folder holds a model.
    """
    if (folder / CARD).exists():
        raise WeightsError("there is a model already", where=folder, fix="choose another folder")
    loaded = load_any(path, config)
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.extras:
        with replacing_file(folder / ORIGINAL) as temporary:
            save_file({name: t.clone().contiguous() for name, t in loaded.extras.items()}, temporary)
    save_model(folder, loaded.model, loaded.card)
    return loaded


def _open(path: Path) -> tuple[Checkpoint, ModelCard | None]:
    """Tensors and, where the file or the folder has one, the card."""
    if path.is_dir():
        card = read_card(path)
        checkpoint = read_checkpoint(path / WEIGHTS)
        if (path / ORIGINAL).exists():
            others = read_checkpoint(path / ORIGINAL).tensors
            checkpoint = Checkpoint(
                path=checkpoint.path, format=checkpoint.format, tensors=others | checkpoint.tensors
            )
        return checkpoint, card
    checkpoint = read_checkpoint(path)
    if checkpoint.format == "safetensors" and (path.parent / CARD).exists():
        return checkpoint, read_card(path.parent)
    text = checkpoint.entries.get(CARD_ENTRY)
    if not isinstance(text, str):
        return checkpoint, None
    try:
        return checkpoint, ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(
            "the model's description in the file cannot be used", where=path, fix=faults(error)
        ) from error


def _build(config: ModelConfig, path: Path) -> VLPart:
    """The model of a file's own description, which is not to be trusted either."""
    if ":" in config.backbone.name:  # timm would fetch "hf-hub:..." from the network
        raise WeightsError(f"the backbone {config.backbone.name!r} is no network of timm", where=path)
    try:
        return build_model(config)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise WeightsError("the model cannot be built", where=path, fix=str(error)) from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _no_detector(checkpoint: Checkpoint, found: Architecture) -> WeightsError:
    if found.kind == "other":
        fix = "give a released file of VLPart, or say with a model configuration what to build"
    else:
        fix = "give a whole detector; a backbone alone is what a training starts from"
    return WeightsError(
        f"nothing says what to build: the tensors look like {found.words}", where=checkpoint.path, fix=fix
    )
