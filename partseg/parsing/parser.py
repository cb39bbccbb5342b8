"""The annotation parser: parts for images that only have a label.

Images of some labels go to the detector, which finds their parts. For any other label the most
similar base images lend their part masks, and each transferred box must be confirmed by a box the
detector finds there, whatever it takes it for.

The steps and their numbers are those of VLPart (facebookresearch/VLPart, parser_net_mixer).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
import numpy.typing as npt

from partseg.layout import AnnotationRow, Category, ImageRecord, Record, Split
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.index import query_pixels
from partseg.parsing.naming import rename
from partseg.parsing.parts import (
    Base,
    Detector,
    Part,
    Transfer,
    detected_parts,
    detector_picture,
    scale_boxes,
    transfer_parts,
    transferred_parts,
)
from partseg.parsing.records import Table, record_of

# Images in memory at once, with their features: of DINO's ViT-S/8 at 224 x 300 pixels 6 MB each.
TOGETHER = 16


class Parser:
    """Finds the parts of images.

    What is found in an image depends on nothing but this image.

    Args:
        config: thresholds and options.
        detector: looks for parts, and for objects if ``finds_objects``.
        reading: how large images are for the descriptors, which is how the published detector sees them.
        base: the annotated base images; not needed if all labels go to the detector.
        by_detector: labels that go to the detector; all others go to transfer.
        finds_objects: write the objects that the detector finds instead of one that covers all parts.
        labels: category id -> name, for the image-level labels of the images.
        categories: the vocabulary that is written, objects and parts.
    """

    def __init__(
        self,
        config: ParserConfig,
        *,
        detector: Detector,
        reading: PictureSize,
        base: Base | None,
        by_detector: Collection[str],
        finds_objects: bool = False,
        labels: Mapping[int, str],
        categories: Sequence[Category],
    ) -> None:
        self.config, self.base = config, base
        self._detector, self._reading = detector, reading
        self._by_detector, self._labels = frozenset(by_detector), dict(labels)
        self._table = Table.of(categories, finds_objects=finds_objects)

    def _path(self, record: ImageRecord) -> Literal["detector", "transfer"] | None:
        """How the parts of an image are found; None for an image without a label."""
        label = self._label(record)
        if label is None:
            return None
        return "detector" if label in self._by_detector else "transfer"

    def records(self, images: Split, rows: Sequence[int]) -> list[Record]:
        """Parse some images.

        Args:
            images: images with image-level labels.
            rows: which of them.

        Returns:
            One record per row, in order: the image with its parts, or a finding that says why there are none.

        Raises:
            LayoutError: the vocabulary to write lacks an object that an image is labelled with.
        """
        table = images.table("images").select(["sha256", "source_id"])
        found = []
        for start in range(0, len(rows), TOGETHER):
            jobs = [self._job(images, row) for row in rows[start : start + TOGETHER]]
            for job, parts in zip(jobs, self._parts(jobs), strict=True):
                known = table.slice(job.row, 1).to_pylist()[0]
                found.append(record_of(job.record, job.label, parts, self._table, self.config, **known))
        return found

    def explain(self, images: Split, row: int) -> Transfer | None:
        """Everything the transfer of one image went through; None for an image that is not transferred to."""
        if self._path(images[row]) != "transfer":
            return None
        return self._transfers([self._job(images, row)])[0]

    def _label(self, record: ImageRecord) -> str | None:
        # As published, the first label decides; images of the ImageNet folders have exactly one.
        return self._labels.get(int(record.pos_category_ids[0])) if len(record.pos_category_ids) else None

    def _job(self, images: Split, row: int) -> _Job:
        record = images[row]
        return _Job(row=row, record=record, label=self._label(record), image=images.read_image(row))

    def _parts(self, jobs: Sequence[_Job]) -> list[list[Part]]:
        """Parts of each image, in order."""
        parts: list[list[Part]] = [[] for _ in jobs]
        detect = [i for i, job in enumerate(jobs) if self._path(job.record) == "detector"]
        pictures = [detector_picture(jobs[i].image, self._reading, self.config) for i in detect]
        for i, picture, found in zip(
            detect, pictures, self._detector.find(pictures, self.config), strict=True
        ):
            size = (int(picture.shape[1]), int(picture.shape[2]))
            parts[i] = list(detected_parts(found, size, jobs[i].size, self.config))
        carry = [i for i, job in enumerate(jobs) if self._path(job.record) == "transfer"]
        for i, transfer in zip(carry, self._transfers([jobs[i] for i in carry]), strict=True):
            parts[i] = list(transferred_parts(transfer, jobs[i].size))
        return parts

    def _transfers(self, jobs: Sequence[_Job]) -> list[Transfer]:
        """The transfer to each image, in order."""
        base = self.base
        if not jobs:
            return []
        assert base is not None, "without base images all labels go to the detector"
        pictures = [detector_picture(job.image, self._reading, self.config) for job in jobs]
        confirming = self._detector.refine(pictures, self.config)
        described = base.describer.describe([query_pixels(job.image, base.describer)[0] for job in jobs])
        found = []
        for job, query, picture, seen in zip(jobs, described, pictures, confirming, strict=True):
            boxes = scale_boxes(seen.boxes, picture.shape[1:], job.size)
            here = replace(seen, boxes=boxes)
            written = partial(self._written, job.label)
            found.append(transfer_parts(job.image, query, here, base, self.config, written=written))
        return found

    def _written(self, label: str | None, name: str) -> str | None:
        return rename(name, str(label), self._table.spellings, self.config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    row: int
    record: ImageRecord
    label: str | None
    image: npt.NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def select(records: Sequence[Record], config: ParserConfig) -> list[Record]:
    """What is kept of all images together: of each label the most certain ones, if there is a quota.

    Args:
        records: all images of a parse, in order.
        config: the quota.

    Returns:
        As many records in the same order. An image beyond the quota becomes a finding; of images that are
        equally certain the first ones are kept.
    """
    if config.images_per_class is None:
        return list(records)
    ranked: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for row, record in enumerate(records):
        if record.image is not None:
            ranked[record.image.pos_category_ids[0]].append((-certainty(record), row))
    beyond = {row for rows in ranked.values() for _, row in sorted(rows)[config.images_per_class :]}
    return [_beyond(record, config) if row in beyond else record for row, record in enumerate(records)]


def certainty(record: Record) -> float:
    """How sure the parts of an image are: the mean of their confidence, 0 to 1; 0 of none."""
    parts = [confidence(row) for row in record.annotations if row.extra and "path" in row.extra]
    return fmean(parts) if parts else 0.0


def confidence(row: AnnotationRow) -> float:
    """How sure one part is, 0 to 1: of the detector, its score."""
    return float((row.extra or {}).get("confidence", row.score or 0.0))


def _beyond(record: Record, config: ParserConfig) -> Record:
    assert record.image is not None
    message = f"{config.images_per_class} images of the same label are more certain, or as certain and first"
    return Record.dropped(record.image.source_key, "beyond-quota", message, record.findings)
