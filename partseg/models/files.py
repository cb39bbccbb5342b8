"""A trained model on disk: ``model.safetensors`` and ``model.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from partseg.errors import WeightsError
from partseg.files import replacing_file, write_file
from partseg.models.config import ModelConfig
from partseg.models.vlpart import VLPart, build_model
from partseg.validation import faults

WEIGHTS, CARD = "model.safetensors", "model.json"


class Vocabulary(BaseModel):
    """The names a model was trained with and how they became vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...]
    encoder: str
    template: str


class ModelCard(BaseModel):
    """What ``model.json`` says about the weights beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["partseg-model-1"] = "partseg-model-1"
    config: ModelConfig
    vocabulary: Vocabulary | None = None
    iterations: int = 0


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write weights and card into an existing folder; the card last, so it is never without its weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing_file(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_file(folder / CARD, f"{card.model_dump_json(indent=2)}\n".encode())


def read_card(folder: Path) -> ModelCard:
    """Read ``model.json``.

    Raises:
        WeightsError: there is none, or it is not a model of this format.
    """
    path = folder / CARD
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError("no model here", where=path, fix="give the folder a training wrote") from error
    except ValidationError as error:
        raise WeightsError("the model's description cannot be used", where=path, fix=faults(error)) from error


def load_model(folder: Path, device: torch.device | str = "cpu") -> VLPart:
    """Build the model of a folder and load its weights; it is in evaluation mode.

    Raises:
        WeightsError: a file is missing, damaged, or the weights do not fit the description.
    """
    model = build_model(read_card(folder).config)
    load_weights(model, folder / WEIGHTS)
    return model.to(device).eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all tensors of a .safetensors file into a model.

    Raises:
        WeightsError: the file cannot be read, or its tensors are not exactly those of the model.
    """
    try:
        model.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise WeightsError("the weights do not fit the model", where=path, fix=str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file.

    Raises:
        WeightsError: it is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise WeightsError("the weights cannot be read", where=path, fix=str(error)) from error
