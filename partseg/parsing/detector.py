"""The parser's view of a trained detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from partseg.models.vlpart import VLPart
from partseg.parsing.config import ParserConfig
from partseg.parsing.parser import FoundParts


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
        self.model, self.names, self.text = model, tuple(names), text

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        """Named parts of each image uint8 [3, H, W]; see :class:`partseg.parsing.parser.Detector`."""
        options = self.model.config.inference.model_copy(
            update={
                "score_threshold": config.score_threshold,
                "nms_iou": config.nms_iou,
                "detections": config.max_detections,
            }
        )
        return [
            FoundParts(
                boxes=found.boxes,
                scores=found.scores,
                names=[self.names[label] for label in found.labels.tolist()],
                rles=found.rles,
            )
            for image in images
            for found in self.model.detect([image], self.text, options)
        ]

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Tensor]:
        """Boxes of anything part-like in each image, xyxy [M, 4]."""
        proposed = [self.model.propose([image], self.text, limit=config.proposals)[0] for image in images]
        by_class = config.candidates_ranked_by == "first_class"
        return [
            suppress(p.refined, p.class_scores[:, 0] if by_class else p.objectness, config) for p in proposed
        ]


def suppress(boxes: Tensor, scores: Tensor, config: ParserConfig) -> Tensor:
    """The best boxes xyxy [M, 4] by score [M], without those that overlap a better one."""
    full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores = boxes[full], scores[full]
    kept: Tensor = nms(boxes, scores, config.nms_iou)[: config.max_detections]
    return boxes[kept.to(torch.int64)]
