"""Average precision of many samples of the images at once, for bootstrap intervals and comparisons.

A sample is how often each image is in it. Nothing is matched again: an image that is in a sample twice brings
its predictions and its true ones twice. All samples are computed together. Between two right predictions of a
category only the number of wrong ones matters, which for all samples is one product of a sparse matrix
(stretches x images) with the samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from partseg.evaluation.average_precision import RECALLS
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.instance_truth import Flags, Floats
from partseg.layout.runs import Ints

SEED = 0
"""Of the samples, so that the same predictions have the same intervals wherever they are computed."""

_CELLS = 1 << 21  # numbers of an array of stretches by samples that are held at once


def draw_samples(images: int, samples: int, seed: int = SEED) -> NDArray[np.int32]:
    """How often each image is in each sample, drawn with replacement, int32 [samples, images]."""
    if not images:
        return np.zeros((samples, 0), np.int32)
    generator = np.random.default_rng(seed)
    return np.stack(
        [
            np.bincount(generator.integers(0, images, images), minlength=images).astype(np.int32)
            for _ in range(samples)
        ]
    ).reshape(samples, images)


def sampled_average_precision(
    table: DetectionTable,
    category_ids: Sequence[int],
    weights: ArrayLike,
    *,
    thresholds: Sequence[int] | None = None,
    recalls: Floats | None = RECALLS,
) -> Floats:
    """AP of every category over all sizes, in every sample.

    The numbers are those of :func:`~partseg.evaluation.average_precision.accumulate` with the sample's
    weights, averaged over the recalls.

    Args:
        table: sorted records.
        category_ids: K of them.
        weights: int [B, I], how often each image of ``table.image_ids`` is in each sample.
        thresholds: positions of the T overlap thresholds to look at; all by default.
        recalls: where precision is read, evenly spaced from 0 to 1; None for the area under the curve.

    Returns:
        float64 [T, K, B]; nan where a sample has no truth of the category.
    """
    samples = np.asarray(weights, np.float64).T  # [I, B]
    if samples.ndim != 2 or len(samples) != len(table.image_ids):
        raise ValueError(f"weights {samples.T.shape} for {len(table.image_ids)} images")
    levels = list(range(table.thresholds) if thresholds is None else thresholds)
    found, truths = table.detections, table.truths
    truths = truths[truths["ignored"] & np.uint8(1) == 0]
    image = np.searchsorted(table.image_ids, found["image_id"])
    true_image = np.searchsorted(table.image_ids, truths["image_id"])
    ids = np.asarray(category_ids, np.int64)
    spans = np.searchsorted(found["category_id"], [ids, ids + 1]).T
    true_spans = np.searchsorted(truths["category_id"], [ids, ids + 1]).T
    result = np.full((len(levels), len(ids), samples.shape[1]), np.nan)
    for k in range(len(ids)):
        rows, true_rows = slice(*spans[k]), slice(*true_spans[k])
        occurring = np.bincount(true_image[true_rows], minlength=len(samples)).astype(np.float64)
        positives = occurring @ samples
        some = np.flatnonzero(positives > 0)
        if not len(some):
            continue
        counts = [
            (
                (found["matched"][rows] & ~found["ignored"][rows] & table.bit(level)) != 0,
                (found["ignored"][rows] & table.bit(level)) == 0,
            )
            for level in levels
        ]
        right = np.flatnonzero(np.logical_or.reduce([hit for hit, _ in counts]))
        step = max(1, _CELLS // max(1, len(right)))
        for start in range(0, len(some), step):
            chosen = some[start : start + step]
            own = samples if len(chosen) == samples.shape[1] else samples[:, chosen]
            result[:, k, chosen] = _category(
                image[rows], np.ascontiguousarray(own), positives[chosen], counts, right, recalls
            )
    return result


def _category(
    image: Ints,
    samples: Floats,
    positives: Floats,
    counts: Sequence[tuple[Flags, Flags]],
    right: Ints,
    recalls: Floats | None,
) -> Floats:
    """AP [T, B] of one category.

    Args:
        image: [N], place of each prediction's image; predictions come by falling score.
        samples: [I, B].
        positives: [B], true ones in each sample.
        counts: for every threshold, which predictions [N] are right, and which count at all.
        right: rows that are right at any threshold, ascending.
        recalls: see :func:`sampled_average_precision`.
    """
    values = np.zeros((len(counts), samples.shape[1]))
    if not len(right):
        return values
    stretch = np.searchsorted(right, np.arange(len(image)), side="left")
    before, seen = None, np.zeros(0)
    for level, (hit, counted) in enumerate(counts):
        if not hit.any():
            continue
        if before is None or not np.array_equal(before, counted):
            rows = np.flatnonzero(counted & (stretch < len(right)))
            shape = (len(right), len(samples))
            matrix = sparse.csr_array((np.ones(len(rows)), (stretch[rows], image[rows])), shape=shape)
            seen, before = np.cumsum(np.asarray(matrix @ samples), axis=0), counted
        some = np.flatnonzero(hit[right])
        true_positives = np.cumsum(samples[image[right[some]]], axis=0)
        best = true_positives / ((seen if len(some) == len(right) else seen[some]) + np.spacing(1))
        best = np.maximum.accumulate(best[::-1], axis=0)[::-1]
        recall = np.divide(true_positives, positives, out=true_positives)
        if recalls is None:
            values[level] = (np.diff(recall, axis=0, prepend=0.0) * best).sum(axis=0)
        else:
            read = np.diff(_reached(recall, recalls), axis=0, prepend=np.int32(0))
            values[level] = (read * best).sum(axis=0) / len(recalls)
    return values


def _reached(recall: Floats, recalls: Floats) -> Ints:
    """How many of the evenly spaced ``recalls`` are at most each recall, as floating point compares them."""
    nearest = np.rint(recall * (len(recalls) - 1)).astype(np.int32)
    return np.asarray(nearest + (recall >= recalls[nearest]), np.int32)
