"""A file of weights in figures, for a person or a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partseg.files import sha256_file
from partseg.models.checkpoints.architecture import recognise
from partseg.models.checkpoints.read import in_words, read_checkpoint
from partseg.models.files import WEIGHTS

MOST_GROUPS = 30
"""Groups by two parts of the names where there are not more than this, else by one."""


def describe(path: Path) -> dict[str, Any]:
    """What a file of weights holds.

    Args:
        path: any file :func:`read_checkpoint` reads, or a model folder.

    Returns:
        ``file``, ``format``, ``bytes``, ``sha256``; ``architecture`` (``kind``, ``backbone``, ``words``, and
        for a detector ``config``); ``groups``, ``tensors`` and ``entries``: what lies beside the tensors.

    Raises:
        WeightsError: as :func:`read_checkpoint`.
    """
    path = path / WEIGHTS if path.is_dir() else path
    checkpoint = read_checkpoint(path)
    tensors: list[dict[str, Any]] = [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "numbers": tensor.numel(),
            "bytes": tensor.numel() * tensor.element_size(),
        }
        for name, tensor in checkpoint.tensors.items()
    ]
    found = recognise({name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()})
    return {
        "file": str(path),
        "format": checkpoint.format,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "architecture": {
            "kind": found.kind,
            "backbone": found.backbone,
            "words": found.words,
            "config": found.config.model_dump(mode="json") if found.config else None,
        },
        "groups": _groups(tensors),
        "tensors": tensors,
        "entries": {name: in_words(value) for name, value in checkpoint.entries.items()},
    }


def _groups(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tensors counted by the beginnings of their names, in the file's order."""
    for parts in (2, 1):
        found: dict[str, list[dict[str, Any]]] = {}
        for tensor in tensors:
            found.setdefault(".".join(tensor["name"].split(".")[:parts]), []).append(tensor)
        if len(found) <= MOST_GROUPS:
            break
    return [
        {
            "name": name,
            "tensors": len(members),
            "numbers": sum(tensor["numbers"] for tensor in members),
            "bytes": sum(tensor["bytes"] for tensor in members),
            "dtypes": sorted({tensor["dtype"] for tensor in members}),
            "largest": max(members, key=lambda tensor: tensor["numbers"])["shape"],
        }
        for name, members in found.items()
    ]
