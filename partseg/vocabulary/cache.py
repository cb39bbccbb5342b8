"""Embeddings that were made before: per encoder and weights one table with a row per prompt."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import numpy as np

from partseg.errors import WeightsError
from partseg.files import default_cache
from partseg.vocabulary.table import EmbeddingTable


def default_folder() -> Path:
    """``texts`` in ``$PARTSEG_CACHE``, or in ``.partseg/cache`` in the current folder."""
    return default_cache() / "texts"


def cache_file(folder: Path, encoder: str, weights: str) -> Path:
    """Where the rows of an encoder are.

    Args:
        folder: the cache.
        encoder: name of the encoder.
        weights: digest of its weights, or the tag of published ones.
    """
    name = re.sub(r"[^\w.-]+", "-", encoder.replace("/", "-"))
    return folder / f"{name}-{weights[:16]}.safetensors"


def read_rows(path: Path) -> EmbeddingTable | None:
    """The cached rows, named by their prompts; None if there are none, or the file is damaged."""
    try:
        return EmbeddingTable.load(path) if path.is_file() else None
    except WeightsError:
        return None


def add_rows(path: Path, rows: EmbeddingTable) -> None:
    """Add rows to the cached ones; where a prompt is there already, the new row counts.

    Processes that add at the same time wait for each other; readers see the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = read_rows(path)
        if old is not None and old.dim == rows.dim:
            kept = [name for name in old.names if name not in set(rows.names)]
            rows = EmbeddingTable(
                names=(*kept, *rows.names),
                vectors=np.concatenate([old.rows(kept), rows.vectors]),
                encoder=rows.encoder,
                template=rows.template,
            )
        rows.save(path)
