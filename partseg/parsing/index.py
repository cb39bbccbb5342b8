"""The base index: one class token per annotated base image.

The index only says which base images resemble a query most. Their part masks stay in the dataset, and dense
descriptors are read again when an image is chosen: few base images ever are.

The tokens are one matrix in a file that is mapped into memory, and the search is a matrix product over all
of it: exact, with nothing to build or to tune.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from partseg.errors import LayoutError, StoreError
from partseg.files import replacing_file
from partseg.layout import Split
from partseg.parsing.descriptors import Describer
from partseg.parsing.vit import resize, short_side_size
from partseg.progress import Progress, Silent

TOKENS, IDS = "tokens.npy", "image_ids.npy"
UNFINISHED = "tokens.float32"

TOKEN_EPS = 1e-6  # smallest product of norms when whole images are compared, as published
ROWS = 8192  # base images looked at at once: 12.6 MB of 384 numbers each
QUERIES = 64  # queries looked up at once: their cosines with 100,000 base images take 26 MB


@dataclass(frozen=True, kw_only=True)
class BaseIndex:
    """Class tokens of base images, in the order of their file names.

    Attributes:
        tokens: float32 [B, D]; mapped from the file for an index that was loaded.
        image_ids: int64 [B], ids in the base dataset.
    """

    tokens: Tensor
    image_ids: Tensor

    def save(self, folder: Path) -> None:
        """Write the index into a folder; each of its two files appears complete or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in ((IDS, self.image_ids), (TOKENS, self.tokens)):
            with replacing_file(folder / name) as temporary, temporary.open("wb") as stream:
                np.save(stream, values.numpy())

    @staticmethod
    def load(folder: Path) -> BaseIndex:
        """Map an index; its tokens are read from the disk as they are looked at.

        Raises:
            StoreError: the folder holds no readable index.
        """
        try:
            # Copy on write, as torch takes no arrays that are read only. Nothing ever writes.
            tokens = np.load(folder / TOKENS, mmap_mode="c")
            image_ids = np.load(folder / IDS)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"not a base index ({error})", where=folder / TOKENS) from error
        if tokens.dtype != np.float32 or tokens.ndim != 2 or image_ids.shape != tokens.shape[:1]:
            raise StoreError("not a base index: its tokens and ids do not fit together", where=folder)
        return BaseIndex(tokens=torch.from_numpy(tokens), image_ids=torch.from_numpy(image_ids))

    def nearest(self, tokens: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The base images most like each query, by the cosine of the class tokens.

        Rows that float32 products cannot tell from the best ones are compared again in float64, one by one.
        So a query finds the same rows whatever other queries are asked with it.

        Args:
            tokens: float32 [Q, D], on any device.
            k: how many for each query; of an index with fewer images all of them are found.

        Returns:
            Rows int64 [Q, k], the most similar first and the first on ties, and cosines float32 [Q, k].
        """
        queries = tokens.detach().to("cpu", torch.float32)
        k = min(k, len(self.image_ids))
        rows = torch.empty((len(queries), k), dtype=torch.int64)
        cosines = torch.empty((len(queries), k))
        # Twice the largest error of a float32 sum of products of unit vectors (Higham, "Accuracy and
        # Stability of Numerical Algorithms", 2002, section 3.1).
        slack = 2 * queries.shape[1] * torch.finfo(torch.float32).eps
        for start in range(0, len(queries), QUERIES):
            some = queries[start : start + QUERIES]
            estimates = self._estimates(some)
            floors = estimates.topk(k, dim=1).values[:, -1] - slack
            for i, (query, estimate, floor) in enumerate(zip(some, estimates, floors, strict=True), start):
                close = torch.nonzero(estimate >= floor)[:, 0]
                exact = self._cosines(close, query)
                best = np.argsort(-exact, kind="stable")[:k]
                rows[i] = close[torch.from_numpy(best)]
                cosines[i] = torch.from_numpy(exact[best].astype(np.float32))
        return rows, cosines

    @cached_property
    def _norms(self) -> Tensor:
        """Lengths of the tokens, float32 [B]."""
        return torch.cat([self.tokens[block].norm(dim=1) for block in _blocks(len(self.tokens))])

    def _estimates(self, queries: Tensor) -> Tensor:
        """Cosines of queries [Q, D] with all base images as float32 has them, [Q, B]."""
        found = torch.empty(len(queries), len(self.image_ids))
        lengths = queries.norm(dim=1, keepdim=True)
        for block in _blocks(found.shape[1]):
            products = lengths * self._norms[block]
            torch.div(queries @ self.tokens[block].mT, products.clamp_min_(TOKEN_EPS), out=found[:, block])
        return found

    def _cosines(self, rows: Tensor, query: Tensor) -> npt.NDArray[np.float64]:
        """Cosines of a query [D] with some base images, each computed by itself."""
        wanted = query.numpy().astype(np.float64)
        length = np.sqrt((wanted * wanted).sum())
        found = []
        for some in _blocks(len(rows)):
            block = self.tokens[rows[some]].numpy().astype(np.float64)
            lengths = np.sqrt((block * block).sum(axis=1)) * length
            found.append((block * wanted).sum(axis=1) / np.maximum(lengths, TOKEN_EPS))
        return np.concatenate(found)


def _blocks(count: int) -> list[slice]:
    """0 to ``count`` in pieces of :data:`ROWS`."""
    return [slice(start, start + ROWS) for start in range(0, count, ROWS)]


def base_rows(split: Split, object_ids: Collection[int], part_ids: Collection[int]) -> list[int]:
    """Images that can serve as a base: exactly one object is annotated, and it has wanted parts.

    Args:
        split: the base dataset.
        object_ids: categories of whole objects.
        part_ids: categories of parts that may be handed on.

    Returns:
        Row numbers of the split, in the order of the file names.
    """
    objects, parts = np.array(sorted(object_ids)), np.array(sorted(part_ids))
    found = []
    for row in range(len(split)):
        record = split[row]
        one_object = np.isin(record.category_ids, objects).sum() == 1
        if one_object and np.isin(record.category_ids, parts).any():
            found.append((record.file_name, row))
    return [row for _, row in sorted(found)]


def build_index(
    split: Split,
    describer: Describer,
    *,
    object_ids: Collection[int],
    part_ids: Collection[int],
    work: Path | None = None,
    report: Progress | None = None,
) -> BaseIndex:
    """Class tokens of all base images of a split.

    Args:
        split: the base dataset.
        describer: reads the tokens.
        object_ids: categories of whole objects.
        part_ids: categories of parts that may be handed on.
        work: a folder that survives an interruption, of this split and describer only: tokens are written
            there as they are read, and a later call begins where an interrupted one ended.
        report: told after every image.

    Raises:
        LayoutError: no image has exactly one object with one of the wanted parts.
    """
    rows = base_rows(split, object_ids, part_ids)
    if not rows:
        raise LayoutError(
            "no image can serve as a base image",
            fix="it takes images of exactly one object with annotated parts",
        )
    report = report or Silent()
    image_ids = torch.tensor([int(split[row].image_id) for row in rows])
    width = describer.token_size
    if work is None:
        tokens = [_token(split, row, describer) for row in _told(rows, 0, report)]
        return BaseIndex(tokens=torch.stack(tokens), image_ids=image_ids)
    with _appending(work / UNFINISHED, 4 * width, len(rows)) as (stream, done):
        for row in _told(rows, done, report):
            stream.write(_token(split, row, describer).numpy().tobytes())
            stream.flush()
    read = np.memmap(work / UNFINISHED, np.float32, "c", shape=(len(rows), width))
    return BaseIndex(tokens=torch.from_numpy(read), image_ids=image_ids)


def _told(rows: list[int], done: int, report: Progress) -> Iterator[int]:
    """The rows from ``done`` on; the report hears of each when the next one is asked for."""
    for i, row in enumerate(rows[done:], start=done + 1):
        yield row
        report.update(i, len(rows), "base images")


@contextmanager
def _appending(path: Path, size: int, limit: int) -> Iterator[tuple[BinaryIO, int]]:
    """A file to append records to, of ``size`` bytes each, and how many complete ones it has already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        done = min(stream.tell() // size, limit)
        stream.truncate(done * size)
        yield stream, done


def _token(split: Split, row: int, describer: Describer) -> Tensor:
    pixels, _ = query_pixels(split.read_image(row), describer)
    return describer(pixels[None])[0].token.cpu()


def query_pixels(image: npt.NDArray[np.uint8], describer: Describer) -> tuple[Tensor, tuple[int, int]]:
    """An image [H, W, 3] as the network's input [3, h, w], and its size (h, w)."""
    size = short_side_size(
        image.shape[0], image.shape[1], describer.config.short_side, describer.config.long_side
    )
    return describer.normalise(resize(image, size)), size
