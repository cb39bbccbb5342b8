"""The parts of one image: what a detector finds, and what base images lend.

The steps are those of VLPart (facebookresearch/VLPart, parser_net_mixer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from partseg.layout import mask_to_rle, rle_to_mask
from partseg.parsing.base_images import BaseImage, BaseImages
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.confirming import Candidates, confirm
from partseg.parsing.descriptors import Describer, Features
from partseg.parsing.index import BaseIndex
from partseg.parsing.lending import lend, vote
from partseg.parsing.naming import part_word
from partseg.parsing.transfer import Transferred, mean_inside, transferred
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


class Detector(Protocol):
    """What the parser needs of a detector; images are uint8 [3, H, W] RGB of any size."""

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        """Parts above the score threshold, after non-maximum suppression per name."""

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        """What may confirm transferred parts, as ``confirmed_by`` says: anything part-like, or detections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One parsed part, in pixels of the original image.

    Attributes:
        name: as found, in the detector's or the base dataset's vocabulary.
        box: xyxy.
        rle: its mask as COCO compressed counts, where there is one.
        score: of the detector, or the mean cosine of the transferred patches.
        extra: where it comes from, and how sure it is (``confidence``) if that is not its score.
    """

    name: str
    box: tuple[float, float, float, float]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Everything one image's transfer went through; but for the features, tensors are on the processor.

    Attributes:
        size: (H, W) of the described image.
        query: features of the image.
        lenders: the k base images that lent parts, the most similar first.
        lender_cosines: how similar their class tokens are to the image's.
        partners: in each lender, the base patch of every query patch, int64 [k, hq * wq].
        cosine: how similar these are, float32 [k, hq * wq].
        names: P names of parts as they were lent.
        lent_by: which lender each part is taken from, P positions in ``lenders``.
        moved: the P parts in the image.
        candidates: what may confirm them, boxes in pixels of the original image.
        matches: the candidate that confirms each part, int64 [P]; -1 for none, or for one not sure enough.
        overlaps: IoU of each part's box with its best candidate, float32 [P].
        mutual: share of each part's patches that find their way back, float32 [P]; None where nobody asked.
        votes: mean share of the lenders with such a part that see it in its patches, float32 [P]; None where
            one lends alone.
        confidence: how sure each part is, float32 [P], see :func:`transfer_confidence`.
    """

    size: tuple[int, int]
    query: Features
    lenders: tuple[BaseImage, ...]
    lender_cosines: tuple[float, ...]
    partners: Tensor
    cosine: Tensor
    names: tuple[str, ...]
    lent_by: tuple[int, ...]
    moved: Transferred
    candidates: Candidates
    matches: Tensor
    overlaps: Tensor
    mutual: Tensor | None
    votes: Tensor | None
    confidence: Tensor


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


def detected_parts(
    found: FoundParts, size: tuple[int, int], original: tuple[int, int], config: ParserConfig
) -> Iterator[Part]:
    """Detections in an image shown at ``size`` (h, w), in pixels of the ``original`` (H, W)."""
    boxes = scale_boxes(found.boxes, size, original)
    for box, score, name, rle in zip(
        boxes.tolist(), found.scores.tolist(), found.names, found.rles, strict=True
    ):
        if score < (config.min_confidence or 0):
            continue
        if rle is not None and size != original:
            rle = _scale_rle(rle, size, original)
        yield Part(name=name, box=tuple(box), rle=rle, score=score, extra={"path": "detector"})


def transfer_parts(
    image: npt.NDArray[np.uint8],
    query: Features,
    candidates: Candidates,
    base: Base,
    config: ParserConfig,
    *,
    written: Callable[[str], str | None] | None = None,
) -> Transfer:
    """Carry the parts of the most similar base images to an image, and look for boxes that confirm them.

    Args:
        image: [H, W, 3].
        query: its features.
        candidates: regions of the detector, in pixels of the image.
        base: the base images.
        config: thresholds and options.
        written: what a lent part is called in this image, None where it has no name there. Parts of one name
            vote together; by default all that have the same word.
    """
    original, reading = (image.shape[0], image.shape[1]), base.describer.config
    size = short_side_size(*original, reading.short_side, reading.long_side)
    foreground = base.describer.foreground(query).cpu()
    lenders, cosines = _lenders(query, base, config)
    names = [[base.part_names[number] for number in lender.category_ids] for lender in lenders]
    called = written or (lambda name: part_word(name, config))
    lent = [
        lend(lender, [called(name) or name for name in own], query, foreground, config)
        for lender, own in zip(lenders, names, strict=True)
    ]
    elected = vote(lent, config.vote_share, foreground)
    moved = transferred(elected.patches, elected.cosine, size)
    lent_names = tuple(names[lender][part] for lender, part in elected.origins)
    boxes = scale_boxes(moved.boxes, size, original)
    seen = confirm(boxes, lent_names, candidates, config)
    votes = mean_inside(elected.share, moved.patches)
    confidence = transfer_confidence(moved.similarity, seen.overlaps, elected.mutual, votes, seen.scores)
    none = torch.zeros(0, foreground.numel())
    return Transfer(
        size=size,
        query=query,
        lenders=lenders,
        lender_cosines=cosines,
        partners=torch.stack([one.partners for one in lent]) if lent else none.long(),
        cosine=torch.stack([one.cosine.flatten() for one in lent]) if lent else none,
        names=lent_names,
        lent_by=tuple(lender for lender, _ in elected.origins),
        moved=moved,
        candidates=candidates,
        matches=torch.where(confidence >= (config.min_confidence or 0), seen.matches, -1),
        overlaps=seen.overlaps,
        mutual=None if config.mutual_within is None else elected.mutual,
        votes=None if config.neighbours == 1 else votes,
        confidence=confidence,
    )


def _lenders(
    query: Features, base: Base, config: ParserConfig
) -> tuple[tuple[BaseImage, ...], tuple[float, ...]]:
    """The most similar base images and their cosines."""
    rows, cosines = base.index.nearest(query.token[None], config.neighbours)
    alike = [
        (base.images.get(int(base.index.image_ids[row])), cosine)
        for row, cosine in zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        if config.min_similarity is None or cosine >= config.min_similarity
    ]
    return tuple(lender for lender, _ in alike), tuple(cosine for _, cosine in alike)


def transfer_confidence(
    similarity: Tensor, overlap: Tensor, mutual: Tensor, votes: Tensor, score: Tensor
) -> Tensor:
    """How sure transferred parts are, 0 to 1; it grows with each of five numbers.

    Args:
        similarity: mean cosine of a part's patches to their partners, [P]; nothing below 0 counts.
        overlap: IoU of its box with the detector's box, [P].
        mutual: share of its patches that find their way back, [P]; 1 where nobody asked.
        votes: share of the lenders with such a part that see it there, [P]; 1 with one lender.
        score: of the detection that confirms it, [P]; 1 where any box may.

    Returns:
        sqrt(similarity x overlap) x mutual x votes x score, [P]: what resembles and what fits count alike, as
        objectness and class do in the detector's scores, which are geometric means too.
    """
    return (similarity.clamp(0, 1) * overlap.clamp(0, 1)).sqrt() * mutual * votes * score


def transferred_parts(found: Transfer, original: tuple[int, int]) -> Iterator[Part]:
    """The confirmed parts of a transfer to an image of ``original`` size (H, W).

    A part has the box that confirms it and the mask of its patches.
    """
    for i, match in enumerate(found.matches.tolist()):
        if match < 0:
            continue
        lender = found.lent_by[i]
        extra = {
            "path": "transfer",
            "base_image_id": found.lenders[lender].image_id,
            "base_similarity": round(found.lender_cosines[lender], 4),
            "box_overlap": round(float(found.overlaps[i]), 4),
            "confidence": round(float(found.confidence[i]), 4),
        }
        for name, shares in (("votes", found.votes), ("mutual", found.mutual)):
            if shares is not None:
                extra[name] = round(float(shares[i]), 4)
        yield Part(
            name=found.names[i],
            box=tuple(found.candidates.boxes[match].tolist()),
            rle=mask_to_rle(_scale_mask(found.moved.patches[i], original).numpy()),
            score=float(found.moved.similarity[i]),
            extra=extra,
        )


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
