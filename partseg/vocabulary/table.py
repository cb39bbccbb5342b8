"""A table of class embeddings: one row per category name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from partseg.errors import WeightsError
from partseg.files import write_file

FORMAT = "partseg-embeddings-1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingTable:
    """Category names and their embeddings.

    Attributes:
        names: C names, each once.
        vectors: [C, D] float32, rows as the encoder gave them (of any length).
        encoder: what made the rows.
        template: the text around each name, with ``{name}`` in it.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    encoder: str
    template: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.names):
            raise WeightsError(f"{len(self.names)} names for embeddings of shape {self.vectors.shape}")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise WeightsError(f"names that occur twice: {', '.join(twice)}")

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.vectors.shape[1])

    def rows(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings [len(names), D] of some names, in their order.

        Raises:
            WeightsError: a name is not in the table; the message says which and what is near.
        """
        index = {name: row for row, name in enumerate(self.names)}
        if missing := [name for name in names if name not in index]:
            near = get_close_matches(missing[0], self.names, n=1)
            raise WeightsError(
                f"{len(missing)} categories have no embedding, first {missing[0]!r}",
                fix=f"did you mean {near[0]!r}?" if near else "add them to the vocabulary stage",
            )
        return self.vectors[[index[name] for name in names]]

    def nearest(self, name: str, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` other names that point most nearly the same way, with their cosines, best first.

        Raises:
            WeightsError: the name is not in the table.
        """
        (found,) = self.nearest_to(self.rows([name]), k + 1)
        return [(other, cosine) for other, cosine in found if other != name][:k]

    def nearest_to(self, vectors: NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """For each of N vectors [N, D] the ``k`` names that point most nearly its way, with cosines."""
        cosines = _unit(vectors) @ _unit(self.vectors).T
        orders = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return [
            [(self.names[i], float(row[i])) for i in order]
            for row, order in zip(cosines, orders, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write the table to one .safetensors file; the same table always gives the same bytes."""
        meta = {
            "format": FORMAT,
            "names": json.dumps(self.names, ensure_ascii=False),
            "encoder": self.encoder,
            "template": self.template,
        }
        # safetensors writes its metadata in no fixed order: one entry has only one.
        content = save(
            {"vectors": np.ascontiguousarray(self.vectors, dtype=np.float32)},
            metadata={"table": json.dumps(meta, sort_keys=True)},
        )
        write_file(path, content)

    @classmethod
    def load(cls, path: Path, *, names: Sequence[str] | None = None) -> EmbeddingTable:
        """Read a table.

        Args:
            path: .safetensors as written by :meth:`save`, or .npy [C, D].
            names: of the rows; needed for .npy, where they are not in the file.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the names.
        """
        try:
            if path.suffix == ".npy":
                return _from_npy(path, names)
            with safe_open(path, framework="numpy") as file:
                meta = json.loads((file.metadata() or {}).get("table", "{}"))
                if meta.get("format") != FORMAT:
                    raise WeightsError("not a table of embeddings", where=path)
                return cls(
                    names=tuple(json.loads(meta["names"])),
                    vectors=file.get_tensor("vectors"),
                    encoder=meta["encoder"],
                    template=meta["template"],
                )
        except (OSError, EOFError, KeyError, ValueError, SafetensorError) as error:
            raise WeightsError("the embeddings cannot be read", where=path, fix=str(error)) from error


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _from_npy(path: Path, names: Sequence[str] | None) -> EmbeddingTable:
    if names is None:
        raise WeightsError("a .npy file has no names", where=path, fix="give the names of its rows in order")
    vectors = np.load(path, allow_pickle=False)
    if not isinstance(vectors, np.ndarray):
        raise WeightsError("an archive of arrays instead of one array", where=path)
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise WeightsError(f"shape {vectors.shape} does not fit {len(names)} names", where=path)
    if vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise WeightsError("the embeddings are not all finite floating-point numbers", where=path)
    return EmbeddingTable(
        names=tuple(names),
        vectors=np.ascontiguousarray(vectors, dtype=np.float32),
        encoder=f"file:{path.name}",
        template="",
    )
