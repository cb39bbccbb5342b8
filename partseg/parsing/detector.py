"""The parser's view of a trained detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from partseg.models.vlpart import VLPart
from partseg.parsing.config import ParserConfig
from partseg.parsing.confirming import Candidates
from partseg.parsing.naming import part_word
from partseg.parsing.parts import FoundParts


class ModelDetector:
    """A detector with the names it looks for.

    Images are looked at one by one: in a batch they would be padded to a common size, which moves
    scores, and labels must not depend on what else is in a batch.

    Args:
        model: in evaluation mode, on its device.
        names: C names, for instance the base parts.
        text: their embeddings, float32 [C, D].
    """

    def __init__(self, model: VLPart, names: Sequence[str], text: Tensor) -> None:
        self.model, self.names = model, tuple(names)
        self.text = text.to(model.pixel_mean.device)

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        """Named parts of each image uint8 [3, H, W]; see :class:`partseg.parsing.parts.Detector`."""
        return [self._find(image, config) for image in images]

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        """What may confirm transferred parts; see :class:`partseg.parsing.parts.Detector`."""
        return [self._refine(image, config) for image in images]

    def _find(self, image: Tensor, config: ParserConfig) -> FoundParts:
        thresholds = {
            "score_threshold": config.score_threshold,
            "nms_iou": config.nms_iou,
            "detections": config.max_detections,
        }
        options = self.model.config.inference.model_copy(update=thresholds)
        if config.detector_sees == "original":
            found = self.model.detect([image], self.text, options)[0]
        else:
            shown = enlarged(image, options.short_side)
            size = (int(image.shape[1]), int(image.shape[2]))
            found = self.model.detect_resized([shown], self.text, [size], options)[0]
        return FoundParts(
            boxes=found.boxes,
            scores=found.scores,
            names=[self.names[label] for label in found.labels.tolist()],
            rles=found.rles,
        )

    def _refine(self, image: Tensor, config: ParserConfig) -> Candidates:
        options, scale = self.model.config.inference, 1.0
        if config.detector_sees == "descriptor":
            # One factor for both sides, as published, though sizes are whole numbers.
            scale = min(image.shape[1:]) / options.short_side
            image = enlarged(image, options.short_side)
            same = {"short_side": min(image.shape[1:]), "long_side": max(image.shape[1:])}
            options = options.model_copy(update=same)
        found = self.model.propose([image], self.text, limit=config.proposals, options=options)[0]
        scores, labels = found.class_scores.max(dim=1)
        names = [self.names[label] for label in labels.tolist()]
        if config.confirmed_by == "detection":
            kept = suppress_alike(found.refined, scores, names, config)
        else:
            ranking = found.objectness
            if config.candidates_ranked_by == "first_class":
                # The probability alone: a score is the root of probability x objectness.
                ranking = found.class_scores[:, 0].square() / ranking.clamp_min(
                    torch.finfo(ranking.dtype).tiny
                )
            kept = suppress(found.refined, ranking, config)
        return Candidates(
            boxes=found.refined[kept].cpu() * scale,
            names=[names[row] for row in kept.tolist()],
            scores=scores[kept].cpu(),
        )


def suppress(boxes: Tensor, scores: Tensor, config: ParserConfig) -> Tensor:
    """Rows int64 of the best boxes xyxy [M, 4] by score [M], without those that overlap a better one."""
    full = torch.nonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[:, 0]
    kept: Tensor = nms(boxes[full], scores[full], config.nms_iou)[: config.max_detections]
    return full[kept.to(torch.int64)]


def suppress_alike(boxes: Tensor, scores: Tensor, names: Sequence[str], config: ParserConfig) -> Tensor:
    """Rows int64 of what is sure enough to confirm a part, best first, without what overlaps a better one.

    Args:
        boxes: xyxy [M, 4].
        scores: [M].
        names: M names; those of one part, of whatever object, compete.
        config: thresholds.
    """
    words = [part_word(name, config) for name in names]
    number = {word: place for place, word in enumerate(dict.fromkeys(words))}
    kind = torch.tensor([number[word] for word in words], dtype=torch.int64, device=boxes.device)
    full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    sure = torch.nonzero(full & (scores >= config.confirming_score))[:, 0]
    kept: Tensor = batched_nms(boxes[sure], scores[sure], kind[sure], config.nms_iou)[: config.max_detections]
    return sure[kept.to(torch.int64)]


def enlarged(image: Tensor, short_side: int) -> Tensor:
    """An image uint8 [3, h, w] with its short side at ``short_side``, as the published parser shows it.

    Bilinear without antialiasing; sizes are cut to whole numbers, and so are the interpolated values. These
    are exact here, while the published float32 is off by 1 in a few pixels of a thousand.
    """
    height, width = image.shape[1:]
    scale = short_side / min(height, width)
    rows, columns = _between(height, int(height * scale)), _between(width, int(width * scale))
    fine = image.double()
    for dim, (before, after, share, whole) in ((1, rows), (2, columns)):
        weight = share.view(-1, 1) if dim == 1 else share
        added = fine.index_select(dim, after).mul_(weight)
        fine = fine.index_select(dim, before).mul_(whole - weight).add_(added)
    return fine.div_(rows.whole * columns.whole).floor_().to(torch.uint8)


class _Between(NamedTuple):
    """For each new pixel the old ones before and after it, int64, and the second one's share of ``whole``."""

    before: Tensor
    after: Tensor
    share: Tensor
    whole: int


def _between(old: int, new: int) -> _Between:
    """Where the centres of ``new`` pixels lie between those of ``old`` ones, in whole numbers."""
    whole = 2 * new
    places = ((2 * torch.arange(new) + 1) * old - new).clamp_min(0)
    before = torch.div(places, whole, rounding_mode="floor")
    return _Between(before, (before + 1).clamp_max(old - 1), (places % whole).double(), whole)
