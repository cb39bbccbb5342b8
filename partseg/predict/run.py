"""Predictions of many photos, one after another, into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from partseg.errors import SourceError
from partseg.layout import read_rgb
from partseg.predict.folder import PredictionsFolder
from partseg.predict.photos import PhotoFile
from partseg.progress import Progress, Silent

if TYPE_CHECKING:
    from partseg.predict.predictor import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the photos: how many were computed or done before, and why the others were not."""

    computed: int
    skipped: int
    failures: tuple[SourceError, ...]


def predict_photos(
    predictor: Predictor,
    photos: Sequence[PhotoFile],
    folder: PredictionsFolder,
    *,
    batch: int = 1,
    report: Progress | None = None,
) -> Outcome:
    """Predict every photo that is not done; a photo that cannot be read does not stop the others."""
    report = report or Silent()
    waiting = [photo for photo in photos if not folder.done(photo)]
    failures: list[SourceError] = []
    computed = 0
    for start in range(0, len(waiting), batch):
        readable = list(_read(waiting[start : start + batch], folder, failures, report))
        if not readable:
            continue
        found = predictor.predict([pixels for _, pixels in readable])
        for (photo, _), prediction in zip(readable, found, strict=True):
            folder.write(photo, prediction)
            computed += 1
        report.update(min(start + batch, len(waiting)), len(waiting), readable[-1][0].path.name)
    return Outcome(computed=computed, skipped=len(photos) - len(waiting), failures=tuple(failures))


def _read(
    photos: Sequence[PhotoFile], folder: PredictionsFolder, failures: list[SourceError], report: Progress
) -> Iterator[tuple[PhotoFile, NDArray[np.uint8]]]:
    for photo in photos:
        try:
            yield photo, read_rgb(photo.path)
        except SourceError as error:
            folder.forget(photo)
            failures.append(error)
            report.log(str(error))
