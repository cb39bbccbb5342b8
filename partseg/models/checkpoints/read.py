"""Any file of weights: its tensors by name, and what else lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partseg.errors import WeightsError
from partseg.models.checkpoints.containers import read_stream, read_zip
from partseg.models.checkpoints.records import Inert
from partseg.models.files import read_tensors

TABLES = ("model", "state_dict", "model_state_dict", "model_state", "module", "blobs")
"""Where trainers put the weights: detectron2 and Swin, timm and mmdetection, others, caffe2."""

WRAPPER = "module."
"""What torch's DataParallel puts before every name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        format: the container, in words.
        tensors: name to tensor, in the file's order, on the CPU.
        entries: what lies beside the tensors, as read.
    """

    path: Path
    format: str
    tensors: dict[str, Tensor]
    entries: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights, whatever wrote it, without running anything of it.

    Args:
        path: torch's .pth in its new or old form, a pickle of arrays (detectron2, caffe2) or .safetensors.
            The content decides, not the name.

    Raises:
        WeightsError: it is missing, damaged, of another kind, or holds more than data; the message says what.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except FileNotFoundError as error:
        raise WeightsError("no such file of weights", where=path, fix="check the path") from error
    except OSError as error:
        raise WeightsError("the weights cannot be read", where=path, fix=str(error)) from error
    if head.startswith(b"PK"):
        return _from_tree(path, "torch zip", read_zip(path))
    if head[8:9] == b"{":
        return Checkpoint(path=path, format="safetensors", tensors=read_tensors(path))
    if head[257:262] == b"ustar":
        raise WeightsError("the file is a tar archive", where=path, fix="unpack it and give the file within")
    if head[:1] == b"\x80":
        return _from_tree(path, *read_stream(path))
    raise WeightsError(
        "the file is none that holds weights",
        where=path,
        fix="give a .pth, a .pkl or a .safetensors file, or a model folder",
    )


def _from_tree(path: Path, form: str, tree: Any) -> Checkpoint:
    if not isinstance(tree, dict):
        raise WeightsError("the file is not a table of named tensors", where=path)
    entries: dict[str, Any] = {}
    table: Mapping[Any, Any] = tree
    if inside := next((name for name in TABLES if isinstance(tree.get(name), dict)), None):
        table = tree[inside]
        entries = {str(key): value for key, value in tree.items() if key != inside}
    tensors: dict[str, Tensor] = {}
    for name, value in table.items():
        tensor = _as_tensor(value)
        if tensor is not None and isinstance(name, str):
            tensors[name] = tensor
        elif inside is None:
            entries[str(name)] = value
        else:
            raise WeightsError(
                f"entry {name!r} of the weights is not a tensor but {in_words(value)}", where=path
            )
    if not tensors:
        raise WeightsError("the file holds no named tensors", where=path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return Checkpoint(path=path, format=form, tensors=tensors, entries=entries)


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return None


def in_words(value: Any) -> str:
    """An entry beside the tensors, short enough for a line."""
    if isinstance(value, Inert):
        return f"an object {value.symbol}"
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        kind = "table" if isinstance(value, dict) else "list"
        return f"a {kind} of {len(value)}"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
