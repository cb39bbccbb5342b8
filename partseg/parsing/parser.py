"""The annotation parser: parts for images that only have a label.

Images whose label is a base object go to the detector, which knows that object's parts. For any
other label the most similar base image lends its part masks, and each transferred box must be
confirmed by a box the detector finds there, whatever it takes it for. Every part is renamed to the
image's label and written under one object of that label.

The steps and their numbers are those of VLPart (facebookresearch/VLPart, parser_net_mixer).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from partseg.errors import LayoutError
from partseg.layout import (
    AnnotationRow,
    Category,
    DatasetWriter,
    Finding,
    ImageRecord,
    ImageRow,
    Record,
    Split,
    mask_to_rle,
    rle_area,
    rle_to_mask,
)
from partseg.parsing.config import ParserConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.index import BaseImages, BaseIndex, query_pixels
from partseg.parsing.naming import rename, split_name
from partseg.parsing.transfer import best_match, nearest, transfer
from partseg.parsing.vit import resize
from partseg.progress import Progress, Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundParts:
    """Parts a detector found in one image.

    Attributes:
        boxes: float32 [N, 4] xyxy pixels of the image it was given.
        scores: float32 [N].
        names: N names in the detector's vocabulary.
        rles: N masks of that image as COCO compressed counts, or None.
    """

    boxes: Tensor
    scores: Tensor
    names: Sequence[str]
    rles: Sequence[bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Regions of one image that may confirm a transferred part.

    Attributes:
        boxes: float32 [M, 4] xyxy pixels of the image the detector was given.
        names: M names, what the detector would take each region for.
    """

    boxes: Tensor
    names: Sequence[str]


class Detector(Protocol):
    """What the parser needs of a detector; images are uint8 [3, H, W] RGB of any size."""

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        """Parts above the score threshold, after non-maximum suppression per name."""

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        """Anything part-like, after class-agnostic suppression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One parsed part, in pixels of the original image."""

    name: str  # as found: in the detector's or the base dataset's vocabulary
    box: tuple[float, float, float, float]  # xyxy
    rle: bytes | None
    score: float
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Everything the transfer path needs."""

    index: BaseIndex
    images: BaseImages
    describer: Describer
    part_names: Mapping[int, str]  # category id of the base dataset -> name


def parse(
    config: ParserConfig,
    images: Split,
    *,
    detector: Detector,
    base: Base,
    base_objects: Collection[str],
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
        detector: knows the parts of the base objects.
        base: the annotated base images.
        base_objects: labels that go to the detector; all others go to transfer.
        labels: category id -> name, for the image-level labels of ``images``.
        writer: where records go; its run id should identify the parameters of this call.
        split: the split to write.
        categories: the vocabulary of the written dataset, objects and parts.
        batch: images per call of the detector.
        report: told after every batch.

    Returns:
        Counts: images, labelled images kept, parts, and how many images each path took.

    Raises:
        LayoutError: the vocabulary to write lacks an object that images are labelled with.
    """
    report = report or Silent()
    vocabulary = {category.name: category.category_id for category in categories}
    digests = images.table("images").column("sha256").to_pylist()
    counts = {"images": len(images), "images_with_parts": 0, "parts": 0, "by_detector": 0, "by_transfer": 0}
    for start in range(0, len(images), batch):
        rows = range(start, min(start + batch, len(images)))
        jobs = [_job(images, row, labels, base_objects) for row in rows]
        for job, parts in zip(jobs, _parts_of(jobs, config, detector, base), strict=True):
            record = _record(job, parts, vocabulary, config.separator, digests[job.row])
            writer.write(split, record)
            counts["by_detector" if job.by_detector else "by_transfer"] += job.label is not None
            counts["images_with_parts"] += record.image is not None
            counts["parts"] += max(0, len(record.annotations) - 1)
        report.update(rows[-1] + 1, len(images), "images parsed")
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    row: int
    record: ImageRecord
    image: npt.NDArray[np.uint8]
    label: str | None
    by_detector: bool


def _job(images: Split, row: int, labels: Mapping[int, str], base_objects: Collection[str]) -> _Job:
    record = images[row]
    # As published, the first label decides; images of the ImageNet folders have exactly one.
    label = labels.get(int(record.pos_category_ids[0])) if len(record.pos_category_ids) else None
    return _Job(
        row=row, record=record, image=images.read_image(row), label=label, by_detector=label in base_objects
    )


def _parts_of(
    jobs: Sequence[_Job], config: ParserConfig, detector: Detector, base: Base
) -> Iterator[list[Part]]:
    """Parts of each image, in order."""
    pictures = [detector_picture(job.image, base.describer, config) for job in jobs]
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
            yield list(transferred_parts(job.image, here, base, config))
        else:
            yield []


def detector_picture(image: npt.NDArray[np.uint8], describer: Describer, config: ParserConfig) -> Tensor:
    """What the detector is shown of an image [H, W, 3]: uint8 [3, h, w]."""
    if config.detector_sees == "descriptor":
        image = resize(image, query_pixels(image, describer)[1])
    return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1)


def detected_parts(found: FoundParts, size: tuple[int, int], original: tuple[int, int]) -> Iterator[Part]:
    """Detections in an image shown at ``size`` (h, w), in pixels of the ``original`` (H, W)."""
    boxes = scale_boxes(found.boxes, size, original)
    for box, score, name, rle in zip(
        boxes.tolist(), found.scores.tolist(), found.names, found.rles, strict=True
    ):
        if rle is not None and size != original:
            rle = _scale_rle(rle, size, original)
        yield Part(name=name, box=tuple(box), rle=rle, score=score, extra={"path": "detector"})


def transferred_parts(
    image: npt.NDArray[np.uint8], candidates: Candidates, base: Base, config: ParserConfig
) -> Iterator[Part]:
    """Parts lent by the most similar base image and confirmed by a detector box.

    Args:
        image: [H, W, 3].
        candidates: regions of the detector, in pixels of the image.
        base: the base images.
        config: thresholds.
    """
    pixels, size = query_pixels(image, base.describer)
    query = base.describer(pixels[None])[0]
    row, cosine = nearest(query.token, base.index.tokens.to(query.token.device))
    lender = base.images.get(int(base.index.image_ids[row]))
    moved = transfer(lender.features, lender.masks, query, base.describer.foreground(query), size)
    original = (image.shape[0], image.shape[1])
    boxes = scale_boxes(moved.boxes, size, original)
    names = [base.part_names[category_id] for category_id in lender.category_ids]
    allowed = _same_part(names, candidates.names, config) if config.confirmed_by == "part" else None
    matches, overlaps = best_match(boxes.cpu(), candidates.boxes.cpu(), config.match_iou, allowed)
    for i, match in enumerate(matches.tolist()):
        if match < 0:
            continue
        yield Part(
            name=names[i],
            box=tuple(candidates.boxes[match].tolist()),
            rle=mask_to_rle(_scale_mask(moved.patches[i], original).cpu().numpy()),
            score=float(moved.similarity[i]),
            extra={
                "path": "transfer",
                "base_image_id": lender.image_id,
                "base_similarity": round(cosine, 4),
                "box_overlap": round(float(overlaps[i]), 4),
            },
        )


def _same_part(lent: Sequence[str], seen: Sequence[str], config: ParserConfig) -> Tensor:
    """Whether two names are of the same part, of whatever object, bool [len(lent), len(seen)]."""
    words = [[split_name(name, config.separator) for name in names] for names in (lent, seen)]
    pairs = [[a is not None and b is not None and a[1] == b[1] for b in words[1]] for a in words[0]]
    return torch.tensor(pairs, dtype=torch.bool).reshape(len(lent), len(seen))


def scale_boxes(boxes: Tensor, size: Sequence[int], original: Sequence[int]) -> Tensor:
    """Boxes xyxy [N, 4] of an image of ``size`` (h, w) in pixels of the ``original`` (H, W)."""
    sx, sy = original[1] / size[1], original[0] / size[0]
    return boxes * boxes.new_tensor([sx, sy, sx, sy])


def _scale_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(mask.shape) == size:
        return mask
    sampled = functional.interpolate(
        mask[None, None].float(), size=size, mode="bilinear", align_corners=False
    )
    return sampled[0, 0] >= 0.5


def _scale_rle(rle: bytes, size: tuple[int, int], original: tuple[int, int]) -> bytes:
    return mask_to_rle(_scale_mask(torch.from_numpy(rle_to_mask(rle, *size)), original).numpy())


def _record(
    job: _Job, parts: Iterable[Part], vocabulary: Mapping[str, int], separator: str, sha256: bytes | None
) -> Record:
    """The image with its object and the parts that have a name there; a finding where nothing was found."""
    source = job.record
    if job.label is None:
        return _dropped(source, "image-without-label", "the image has no label")
    if job.label not in vocabulary:
        raise LayoutError(
            f"the vocabulary to write has no category named '{job.label}'",
            where=source.file_name,
            fix="write with the categories of a dataset that has this object",
        )
    size = (int(source.height), int(source.width))
    named = [(rename(part.name, job.label, vocabulary, separator=separator), part) for part in parts]
    rows = [row for name, part in named if name is not None and (row := _row(part, vocabulary[name], size))]
    if not rows:
        return _dropped(source, "no-part-found", f"no part was found in this image of '{job.label}'")
    image = ImageRow(
        file_name=source.file_name,
        height=size[0],
        width=size[1],
        pos_category_ids=(vocabulary[job.label],),
        source_key=source.source_key,
        sha256=sha256,
    )
    whole = _object_row(rows, vocabulary[job.label], size)
    return Record(image=image, annotations=(whole, *rows), findings=())


def _dropped(source: ImageRecord, reason: str, message: str) -> Record:
    finding = Finding(source_key=source.source_key, reason=reason, message=message, image_dropped=True)
    return Record(image=None, annotations=(), findings=(finding,))


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
        parent=0,
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
