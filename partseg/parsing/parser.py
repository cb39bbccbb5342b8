"""The annotation parser: parts for images that only have a label.

Images of some labels go to the detector, which finds their parts. For any other label the most
similar base image lends its part masks, and each transferred box must be confirmed by a box the
detector finds there, whatever it takes it for. Every part is renamed to the image's label and written
under one object of that label. A detector that looks for objects as well gives an image's objects
itself: they are written as they are found, of whatever label, and the parts beside them.

The steps and their numbers are those of VLPart (facebookresearch/VLPart, parser_net_mixer).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from partseg.errors import LayoutError
from partseg.layout import (
    AnnotationRow,
    Category,
    DatasetWriter,
    ImageRecord,
    ImageRow,
    Record,
    Split,
    mask_to_rle,
    rle_area,
    rle_to_mask,
)
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.naming import rename, spellings
from partseg.parsing.parts import (
    Base,
    Candidates,
    Detector,
    Part,
    detected_parts,
    detector_picture,
    scale_boxes,
    transferred_parts,
)
from partseg.progress import Progress, Silent


def parse(
    config: ParserConfig,
    images: Split,
    *,
    detector: Detector,
    reading: PictureSize,
    base: Base | None,
    by_detector: Collection[str],
    finds_objects: bool = False,
    labels: Mapping[int, str],
    writer: DatasetWriter,
    split: str,
    categories: Sequence[Category],
    batch: int = 8,
    report: Progress | None = None,
) -> dict[str, int]:
    """Parse every labelled image and write what was found.

    The batch size only groups calls to the detector; it does not change any label.

    Args:
        config: thresholds.
        images: images with image-level labels.
        detector: looks for parts, and for objects if ``finds_objects``.
        reading: how large images are for the descriptors, which is how the published detector sees them.
        base: the annotated base images; not needed if all labels go to the detector.
        by_detector: labels that go to the detector; all others go to transfer.
        finds_objects: write the objects that the detector finds instead of one that covers all parts.
        labels: category id -> name, for the image-level labels of ``images``.
        writer: where records go; its run id should identify the parameters of this call.
        split: the split to write.
        categories: the vocabulary of the written dataset, objects and parts.
        batch: images per call of the detector.
        report: told after every batch.

    Returns:
        Counts: images, those in which anything was found, parts, and how many images each path took.

    Raises:
        LayoutError: the vocabulary to write lacks an object that images are labelled with.
    """
    report = report or Silent()
    table = _Table(
        ids={category.name: category.category_id for category in categories},
        spellings=spellings(category.name for category in categories),
        parts=frozenset(category.category_id for category in categories if category.kind == "part"),
        finds_objects=finds_objects,
    )
    digests = images.table("images").column("sha256").to_pylist()
    counts = {"images": len(images), "images_with_parts": 0, "parts": 0, "by_detector": 0, "by_transfer": 0}
    for start in range(0, len(images), batch):
        rows = range(start, min(start + batch, len(images)))
        jobs = [_job(images, row, labels, by_detector) for row in rows]
        for job, parts in zip(jobs, _parts_of(jobs, config, detector, reading, base), strict=True):
            record = _record(job, parts, table, config, digests[job.row])
            writer.write(split, record)
            counts["by_detector" if job.by_detector else "by_transfer"] += job.label is not None
            counts["images_with_parts"] += record.image is not None
            counts["parts"] += sum(row.category_id in table.parts for row in record.annotations)
        report.update(rows[-1] + 1, len(images), "images parsed")
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    row: int
    record: ImageRecord
    image: npt.NDArray[np.uint8]
    label: str | None
    by_detector: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The categories that may be written."""

    ids: Mapping[str, int]
    spellings: Mapping[str, str]
    parts: frozenset[int]
    finds_objects: bool


def _job(images: Split, row: int, labels: Mapping[int, str], by_detector: Collection[str]) -> _Job:
    record = images[row]
    # As published, the first label decides; images of the ImageNet folders have exactly one.
    label = labels.get(int(record.pos_category_ids[0])) if len(record.pos_category_ids) else None
    return _Job(
        row=row, record=record, image=images.read_image(row), label=label, by_detector=label in by_detector
    )


def _parts_of(
    jobs: Sequence[_Job], config: ParserConfig, detector: Detector, reading: PictureSize, base: Base | None
) -> Iterator[list[Part]]:
    """Parts of each image, in order."""
    pictures = [detector_picture(job.image, reading, config) for job in jobs]
    detect = [i for i, job in enumerate(jobs) if job.label is not None and job.by_detector]
    confirm = [i for i, job in enumerate(jobs) if job.label is not None and not job.by_detector]
    found = dict(
        zip(detect, detector.find([pictures[i] for i in detect], config) if detect else [], strict=True)
    )
    candidates = dict(
        zip(confirm, detector.refine([pictures[i] for i in confirm], config) if confirm else [], strict=True)
    )
    for i, job in enumerate(jobs):
        size = (int(pictures[i].shape[1]), int(pictures[i].shape[2]))
        if i in found:
            yield list(detected_parts(found[i], size, job.image.shape[:2]))
        elif i in candidates:
            boxes = scale_boxes(candidates[i].boxes, size, job.image.shape[:2])
            here = Candidates(boxes=boxes, names=candidates[i].names)
            assert base is not None, "without base images all labels go to the detector"
            yield list(transferred_parts(job.image, here, base, config))
        else:
            yield []


def _record(
    job: _Job, parts: Iterable[Part], table: _Table, config: ParserConfig, sha256: bytes | None
) -> Record:
    """The image with its object and the parts that have a name there; a finding where nothing was found."""
    source = job.record
    if job.label is None:
        return Record.dropped(source.source_key, "image-without-label", "the image has no label")
    if job.label not in table.ids:
        raise LayoutError(
            f"the vocabulary to write has no category named '{job.label}'",
            where=source.file_name,
            fix="write with the categories of a dataset that has this object",
        )
    size = (int(source.height), int(source.width))
    named = [(rename(part.name, job.label, table.spellings, config), part) for part in parts]
    rows = [row for name, part in named if name is not None and (row := _row(part, table.ids[name], size))]
    if not rows:
        message = f"no part was found in this image of '{job.label}'"
        return Record.dropped(source.source_key, "no-part-found", message)
    image = ImageRow(
        file_name=source.file_name,
        height=size[0],
        width=size[1],
        pos_category_ids=(table.ids[job.label],),
        source_key=source.source_key,
        sha256=sha256,
    )
    if table.finds_objects:  # which of them a part belongs to is not known
        return Record(image=image, annotations=tuple(rows), findings=())
    whole = _object_row(rows, table.ids[job.label], size)
    owned = (replace(row, parent=0) for row in rows)
    return Record(image=image, annotations=(whole, *owned), findings=())


def _row(part: Part, category_id: int, size: tuple[int, int]) -> AnnotationRow | None:
    """A part clipped to the image; None if nothing is left of it."""
    height, width = size
    x0, y0, x1, y1 = part.box
    x0, x1 = max(0.0, min(x0, width)), max(0.0, min(x1, width))
    y0, y1 = max(0.0, min(y0, height)), max(0.0, min(y1, height))
    if x1 <= x0 or y1 <= y0:
        return None
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=float(rle_area(part.rle)) if part.rle is not None else (x1 - x0) * (y1 - y0),
        rle=part.rle,
        score=part.score,
        extra=dict(part.extra),
    )


def _object_row(parts: Sequence[AnnotationRow], category_id: int, size: tuple[int, int]) -> AnnotationRow:
    """The object the label names: everything its parts cover. Its true outline is not known."""
    corners = np.array([row.bbox_xywh for row in parts])
    low, high = corners[:, :2].min(axis=0), (corners[:, :2] + corners[:, 2:]).max(axis=0)
    covered = np.zeros(size, dtype=bool)
    for row in parts:
        if row.rle is not None:
            covered |= rle_to_mask(row.rle, *size)
    box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=box,
        area=float(covered.sum()) if covered.any() else box[2] * box[3],
        rle=mask_to_rle(covered) if covered.any() else None,
        score=max(float(row.score or 0) for row in parts),
        extra={"extent": "union of the parts"},
    )
