"""The parser's view of a trained detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from partseg.models.vlpart import VLPart
from partseg.parsing.config import ParserConfig
from partseg.parsing.parts import Candidates, FoundParts


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
        """Named parts of each image uint8 [3, H, W]; see :class:`partseg.parsing.parts.Detector`."""
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

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        """Anything part-like in each image, with the name it would get."""
        by_class = config.candidates_ranked_by == "first_class"
        found = []
        for image in images:
            proposed = self.model.propose([image], self.text, limit=config.proposals)[0]
            ranking = proposed.class_scores[:, 0] if by_class else proposed.objectness
            kept = suppress(proposed.refined, ranking, config)
            best = proposed.class_scores[kept].argmax(dim=1).tolist()
            names = [self.names[label] for label in best]
            found.append(Candidates(boxes=proposed.refined[kept], names=names))
        return found


def suppress(boxes: Tensor, scores: Tensor, config: ParserConfig) -> Tensor:
    """Rows int64 of the best boxes xyxy [M, 4] by score [M], without those that overlap a better one."""
    full = torch.nonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[:, 0]
    kept: Tensor = nms(boxes[full], scores[full], config.nms_iou)[: config.max_detections]
    return full[kept.to(torch.int64)]
