"""Runs a detector over a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from partseg.evaluation.predictions import Predictions, concatenate, make
from partseg.layout import Split
from partseg.models.config import InferenceConfig
from partseg.models.structures import Detections
from partseg.models.vlpart import VLPart
from partseg.progress import Progress, Silent
from partseg.training.data import WORKER_START


class _Images(Dataset[tuple[int, Tensor]]):
    def __init__(self, split: Split, rows: Sequence[int]) -> None:
        self.split, self.rows = split, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[int, Tensor]:
        row = self.rows[position]
        pixels = self.split.read_image(row).transpose(2, 0, 1)
        return row, torch.from_numpy(np.ascontiguousarray(pixels))


def detect_split(
    model: VLPart,
    split: Split,
    text: NDArray[np.float32] | Tensor,
    *,
    rows: Sequence[int] | None = None,
    options: InferenceConfig | None = None,
    batch_size: int = 1,
    workers: int = 0,
    report: Progress | None = None,
) -> Iterator[tuple[int, Detections]]:
    """Detect in images of a split, in order.

    Images of one batch are padded to a common size, which moves scores a little near the padding; the
    published numbers were made with one image at a time.

    Args:
        model: a detector on any device.
        split: of a dataset that was opened with its ``image_root``.
        text: [C, D] embeddings of the classes to look for.
        rows: of the images; all of them where not given.
        options: sizes and thresholds; the model's own where not given.
        batch_size: images per step.
        workers: processes that read images.
        report: who is told about progress.

    Yields:
        Row of the image in the split, and what was found in it; labels are rows of ``text``.
    """
    report = report or Silent()
    device = model.pixel_mean.device
    matrix = torch.as_tensor(text).to(device)
    chosen = range(len(split)) if rows is None else rows
    loader = DataLoader(
        _Images(split, chosen),
        batch_size=batch_size,
        num_workers=workers,
        multiprocessing_context=WORKER_START if workers else None,
        collate_fn=list,
    )
    done = 0
    with _evaluating(model):
        for batch in loader:
            found = model.detect([image for _, image in batch], matrix, options)
            for (row, _), detections in zip(batch, found, strict=True):
                yield row, detections
            done += len(batch)
            report.update(done, len(chosen), "images")


def predict_split(
    model: VLPart,
    split: Split,
    text: NDArray[np.float32] | Tensor,
    category_ids: Sequence[int],
    *,
    rows: Sequence[int] | None = None,
    options: InferenceConfig | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> Predictions:
    """What :func:`detect_split` finds, one image at a time, as a table of predictions.

    Args:
        model: a detector on any device.
        split: of a dataset that was opened with its ``image_root``.
        text: [C, D] embeddings of the classes to look for.
        category_ids: the category of each row of ``text``.
        rows: of the images; all of them where not given.
        options: sizes and thresholds; the model's own where not given.
        workers: processes that read images.
        report: who is told about progress.
    """
    tables = []
    for row, found in detect_split(
        model, split, text, rows=rows, options=options, workers=workers, report=report
    ):
        xywh = found.boxes.double().numpy()
        xywh[:, 2:] -= xywh[:, :2]
        labels = [category_ids[label] for label in found.labels.tolist()]
        tables.append(make(split[row].image_id, labels, found.scores.double().numpy(), xywh, found.rles))
    return concatenate(tables)


@contextmanager
def _evaluating(model: VLPart) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
