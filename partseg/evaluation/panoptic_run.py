"""Predictions of panoptic, part-aware and semantic models against a dataset, in one call each.

Every call gives a state: ``result()`` of it are the numbers. Ranks of a training evaluate a share of the
images each (``indices=share(range(len(truth)), rank, world)``) and put the states together with
:func:`~partseg.evaluation.merging.gathered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from partseg.evaluation.mean_iou import MeanIoU, SemanticProtocol
from partseg.evaluation.merging import in_chunks
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
    job = partial(_panoptic, truth, predictions, protocol, report if workers <= 0 else None)
    return in_chunks(job, _all(truth, indices), workers=workers)


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
    job = partial(_parts, truth, predictions, protocol, report if workers <= 0 else None)
    return in_chunks(job, _all(truth, indices), workers=workers)


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
    job = partial(_semantic, truth, predictions, protocol, report if workers <= 0 else None)
    return in_chunks(job, _all(truth, indices), workers=workers)


def _all(truth: PanopticTruth | PartTruth | SemanticTruth, indices: Sequence[int] | None) -> Sequence[int]:
    return range(len(truth)) if indices is None else indices


def _panoptic(
    truth: PanopticTruth,
    predictions: PanopticFolder,
    protocol: PanopticProtocol,
    report: Progress | None,
    indices: Sequence[int],
) -> PanopticQuality:
    state = PanopticQuality(truth.categories(), protocol)
    for done, index in enumerate(indices, 1):
        key = truth.key(index)
        image = predictions.read(key)
        where = f"{predictions.json}, image {key}"
        state.add(truth.image_id(index), truth.image(index), image, where=where)
        (report or Silent()).update(done, len(indices), truth.split_name)
    return state


def _parts(
    truth: PartTruth,
    predictions: PartFolder,
    protocol: PartProtocol,
    report: Progress | None,
    indices: Sequence[int],
) -> PartPanopticQuality:
    state = PartPanopticQuality(truth.spec, protocol)
    for done, index in enumerate(indices, 1):
        name = str(truth.key(index))
        where = predictions.path(name)
        state.add(truth.image_id(index), truth.runs(index), predictions.read(name), where=where)
        (report or Silent()).update(done, len(indices), truth.split_name)
    return state


def _semantic(
    truth: SemanticTruth,
    predictions: SemanticFolder,
    protocol: SemanticProtocol,
    report: Progress | None,
    indices: Sequence[int],
) -> MeanIoU:
    state = MeanIoU(truth.classes(), protocol, ignore=truth.ignore)
    for done, index in enumerate(indices, 1):
        name = truth.file_name(index)
        where = predictions.path(name)
        state.add(truth.image_id(index), truth.runs(index), predictions.read(name), where=where)
        (report or Silent()).update(done, len(indices), truth.split_name)
    return state
