"""Predictions of a whole split through a state, in chunks of images, in this process or several.

Ranks of a training evaluate a share of the images each (``indices=share(range(len(split)), rank, world)``)
and put the states together with :func:`~partseg.evaluation.merging.gathered`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from partseg.evaluation.instance_truth import SplitLike
from partseg.evaluation.merging import merged, process_pool
from partseg.evaluation.predictions import PredictionError, Predictions
from partseg.progress import Progress, Silent

CHUNK = 512
"""Images that are matched together."""


class Matching(Protocol):
    """A state that matches predictions of images."""

    def add(self, images: Sequence[Any], predictions: Predictions) -> None:
        """Match the predictions of some images."""

    def merge(self, other: Any) -> Any:
        """Both together."""


State = TypeVar("State", bound=Matching)


def run(
    state: State,
    split: SplitLike,
    predictions: Predictions,
    *,
    indices: Sequence[int] | None = None,
    workers: int = 0,
    report: Progress | None = None,
) -> State:
    """Match all predictions.

    Args:
        state: a fresh one; it is filled where there are no workers.
        split: the images with their truth; with workers it has to pickle.
        predictions: rows in any order, of these images only.
        indices: images to evaluate, each once; all by default. Predictions of the split's other images are
            left out then.
        workers: further processes.
        report: told after every chunk.

    Returns:
        The filled state.

    Raises:
        PredictionError: predictions of another image, or whatever the state refuses.
    """
    chosen = range(len(split)) if indices is None else indices
    found = _Grouped(predictions)
    report = report or Silent()
    chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    done, used = 0, 0
    if workers <= 0 or len(chunks) < 2:
        for chunk in chunks:
            images = [split[index] for index in chunk]
            own = found.of(image.image_id for image in images)
            state.add(images, own)
            done, used = done + len(chunk), used + len(own)
            report.update(done, len(chosen), "images evaluated")
    else:
        state, used = _in_processes(state, split, found, chunks, workers, report)
    if indices is None and used < len(predictions):
        known = np.array([split[index].image_id for index in chosen], np.int64)
        strangers = np.setdiff1d(predictions.image_ids, known)
        raise PredictionError(
            f"{len(strangers)} predicted images are not in this split, the first with id {strangers[0]}",
            fix="evaluate on the split the predictions were made for",
        )
    return state


class _Grouped:
    """Predictions by image."""

    def __init__(self, predictions: Predictions) -> None:
        ids = predictions.image_ids
        if (np.diff(ids) < 0).any():
            predictions = predictions[np.argsort(ids, kind="stable")]
        self.predictions = predictions
        self.image_ids, self.begin = np.unique(predictions.image_ids, return_index=True)
        self.end = np.append(self.begin[1:], len(predictions))

    def of(self, image_ids: Iterator[int]) -> Predictions:
        """The predictions of some images."""
        wanted = np.sort(np.fromiter(image_ids, np.int64))
        place = np.searchsorted(self.image_ids, wanted)
        place = place[np.isin(wanted, self.image_ids)]
        begin, end = self.begin[place], self.end[place]
        if len(place) and (begin[1:] == end[:-1]).all():
            return self.predictions[slice(int(begin[0]), int(end[-1]))]
        rows = [np.arange(first, last) for first, last in zip(begin.tolist(), end.tolist(), strict=True)]
        return self.predictions[np.concatenate([np.zeros(0, np.int64), *rows])]


def _in_processes(
    state: State,
    split: SplitLike,
    found: _Grouped,
    chunks: Sequence[Sequence[int]],
    workers: int,
    report: Progress,
) -> tuple[State, int]:
    """The filled state, and how many predictions went into it."""
    states, done, used = [state], 0, 0
    with process_pool(min(workers, len(chunks))) as pool:
        waiting: list[Any] = []
        for number, chunk in enumerate(chunks):
            own = found.of(split[index].image_id for index in chunk)
            used += len(own)
            waiting.append((len(chunk), pool.submit(_one, state, split, chunk, own)))
            # so that no more than a few chunks of masks wait in pipes
            while waiting and (len(waiting) > 2 * workers or number == len(chunks) - 1):
                count, future = waiting.pop(0)
                states.append(future.result())
                done += count
                report.update(done, sum(map(len, chunks)), "images evaluated")
    return merged(states), used


def _one(state: State, split: SplitLike, chunk: Sequence[int], own: Predictions) -> State:
    state.add([split[index] for index in chunk], own)
    return state
