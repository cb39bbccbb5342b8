"""In which images a model does worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from partseg.evaluation.assess import Assessed


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstImage:
    """One image.

    Attributes:
        image_id: as the evaluation names it.
        badness: of objects and parts, the number of true ones that were not found at an overlap of .50, plus
            the scores of the wrong predictions; of segments, how many are wrong or missed; of maps of
            classes, the share of wrong pixels.
        missed: true objects, parts or segments that were not found; None for maps of classes.
        wrong: predictions that are wrong; None for maps of classes.
    """

    image_id: Any
    badness: float
    missed: int | None
    wrong: int | None


def worst_images(item: Assessed, number: int) -> list[WorstImage]:
    """The worst images, the worst first; those without any mistake are left out.

    Args:
        item: an evaluation.
        number: of images, at most.
    """
    ids = item.image_ids
    badness: Any
    missed = wrong = None
    if item.table is not None:
        table = item.table
        own = np.searchsorted(table.image_ids, table.detections["image_id"])
        true = np.searchsorted(table.image_ids, table.truths["image_id"])
        mistakes, gone = table.mistakes(), table.missed()
        missed = np.bincount(true[gone], minlength=len(ids))
        wrong = np.bincount(own[mistakes], minlength=len(ids))
        scores = np.clip(table.detections["score"][mistakes], 0, 1)
        badness = np.add(missed, np.bincount(own[mistakes], scores, minlength=len(ids)))
    elif hasattr(item.state, "counts"):
        counts = item.state.counts.table()
        missed, wrong = counts.fn.sum(axis=1), counts.fp.sum(axis=1)
        badness = (missed + wrong).astype(np.float64)
    else:
        pixels = item.state.table().sum(axis=1)  # true, predicted, both
        badness = 1 - pixels[:, 2] / np.maximum(pixels[:, 0], 1)
        badness[pixels[:, 0] == 0] = 0
    order = np.argsort(-badness, kind="stable")[:number].tolist()
    return [
        WorstImage(
            image_id=ids[row],
            badness=float(badness[row]),
            missed=None if missed is None else int(missed[row]),
            wrong=None if wrong is None else int(wrong[row]),
        )
        for row in order
        if badness[row] > 0
    ]
