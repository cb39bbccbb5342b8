"""The parts of one image: what a detector finds, and what a base image lends.

The steps are those of VLPart (facebookresearch/VLPart, parser_net_mixer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from partseg.layout import mask_to_rle, rle_to_mask
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.descriptors import Describer
from partseg.parsing.index import BaseImages, BaseIndex, query_pixels
from partseg.parsing.naming import part_word
from partseg.parsing.transfer import best_match, nearest, transfer
from partseg.parsing.vit import resize, short_side_size


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


def detector_picture(image: npt.NDArray[np.uint8], reading: PictureSize, config: ParserConfig) -> Tensor:
    """What the detector is shown of an image [H, W, 3]: uint8 [3, h, w].

    Args:
        image: the original.
        reading: how large the describer looks at it, or would.
        config: says whether the detector sees the same.
    """
    if config.detector_sees == "descriptor":
        height, width = image.shape[:2]
        image = resize(image, short_side_size(height, width, reading.short_side, reading.long_side))
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
    words = [[part_word(name, config) for name in names] for names in (lent, seen)]
    pairs = [[a is not None and a == b for b in words[1]] for a in words[0]]
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
