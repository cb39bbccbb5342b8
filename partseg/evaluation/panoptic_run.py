"""Predictions of panoptic, part-aware and semantic models against a dataset, in one call each.

Every call gives a state: ``result()`` of it are the numbers. Ranks of a training evaluate a share of the
images each (``indices=share(range(len(truth)), rank, world)``) and put the states together with
:func:`~partseg.evaluation.merging.gathered`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from partseg.evaluation.mean_iou import MeanIoU, SemanticProtocol
from partseg.evaluation.merging import State, in_chunks
from partseg.evaluation.panoptic_files import PanopticFolder, PartFolder, SemanticFolder
from partseg.evaluation.panoptic_matching import PanopticProtocol
from partseg.evaluation.panoptic_quality import PanopticQuality
from partseg.evaluation.panoptic_truth import PanopticTruth, PartTruth, SemanticTruth
from partseg.evaluation.part_matching import PartProtocol
from partseg.evaluation.part_panoptic_quality import PartPanopticQuality
from partseg.progress import Progress, Silent


def evaluate_panoptic(
    truth: PanopticTruth,
    predictions: PanopticFolder,
    *,
    protocol: PanopticProtocol = "panopticapi",
    indices: Sequence[int] | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> PanopticQuality:
    """Panoptic quality of COCO panoptic predictions.

    Args:
        truth: a split.
        predictions: opened with ``category_of=truth.category_of()``.
        protocol: see :mod:`partseg.evaluation.panoptic_quality`.
        indices: images to evaluate; all by default.
        workers: further processes.
        report: told after every image, where there are no workers.

    Raises:
        PredictionError: an image is missing, or a prediction is not usable.
    """
    state = PanopticQuality(truth.categories(), protocol)
    return _evaluate(state, _add_panoptic, truth, predictions, indices, workers, report)


def evaluate_parts(
    truth: PartTruth,
    predictions: PartFolder,
    *,
    protocol: PartProtocol = "panoptic_parts",
    indices: Sequence[int] | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> PartPanopticQuality:
    """PartPQ of part-aware panoptic predictions.

    Args:
        truth: a split.
        predictions: their maps are called as the images, or begin with their keys.
        protocol: see :mod:`partseg.evaluation.part_panoptic_quality`.
        indices: images to evaluate; all by default.
        workers: further processes.
        report: told after every image, where there are no workers.

    Raises:
        PredictionError: an image is missing, or a prediction is not usable.
    """
    state = PartPanopticQuality(truth.spec, protocol)
    return _evaluate(state, _add_parts, truth, predictions, indices, workers, report)


def evaluate_semantic(
    truth: SemanticTruth,
    predictions: SemanticFolder,
    *,
    protocol: SemanticProtocol = "mmseg",
    indices: Sequence[int] | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> MeanIoU:
    """IoU of every class of semantic predictions.

    Args:
        truth: a split; its ``ids`` and ``ignore`` are those of the predictions.
        predictions: their maps are called as the images.
        protocol: see :mod:`partseg.evaluation.mean_iou`.
        indices: images to evaluate; all by default.
        workers: further processes.
        report: told after every image, where there are no workers.

    Raises:
        PredictionError: an image is missing, or a prediction is not usable.
    """
    state = MeanIoU(truth.classes(), protocol, ignore=truth.ignore)
    return _evaluate(state, _add_semantic, truth, predictions, indices, workers, report)


def _evaluate(
    state: State,
    add: Callable[[State, Any, Any, int], None],
    truth: Any,
    predictions: Any,
    indices: Sequence[int] | None,
    workers: int,
    report: Progress | None,
) -> State:
    """``add(state, truth, predictions, index)`` for every image, in this process or in several."""
    job = partial(_fill, state, add, truth, predictions, report if workers <= 0 else None)
    return in_chunks(job, range(len(truth)) if indices is None else indices, workers=workers)


def _fill(
    state: State,
    add: Callable[[State, Any, Any, int], None],
    truth: Any,
    predictions: Any,
    report: Progress | None,
    indices: Sequence[int],
) -> State:
    for done, index in enumerate(indices, 1):
        add(state, truth, predictions, index)
        (report or Silent()).update(done, len(indices), truth.split_name)
    return state


def _add_panoptic(
    state: PanopticQuality, truth: PanopticTruth, predictions: PanopticFolder, index: int
) -> None:
    key = truth.key(index)
    image = predictions.read(key)
    state.add(truth.image_id(index), truth.image(index), image, where=f"{predictions.json}, image {key}")


def _add_parts(state: PartPanopticQuality, truth: PartTruth, predictions: PartFolder, index: int) -> None:
    name = str(truth.key(index))
    where = predictions.path(name)
    state.add(truth.image_id(index), truth.runs(index), predictions.read(name), where=where)


def _add_semantic(state: MeanIoU, truth: SemanticTruth, predictions: SemanticFolder, index: int) -> None:
    name = truth.file_name(index)
    where = predictions.path(name)
    state.add(truth.image_id(index), truth.runs(index), predictions.read(name), where=where)
