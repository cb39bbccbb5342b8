"""Which of the detector's boxes confirms a transferred part.

As published, that is whatever box overlaps the part's own most. The other rule is for descriptors that are
often wrong: only what the detector itself takes for such a part can confirm one, and each detection one part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from partseg.parsing.config import ParserConfig
from partseg.parsing.naming import part_word


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Regions of one image that may confirm a transferred part.

    Attributes:
        boxes: float32 [M, 4] xyxy pixels of the image the detector was given.
        names: M names, what the detector would take each region for.
        scores: how sure it is of that name, float32 [M].
    """

    boxes: Tensor
    names: Sequence[str]
    scores: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What was found for P transferred parts.

    Attributes:
        matches: candidate rows int64 [P], -1 where none confirms the part.
        overlaps: IoU with the candidate that fits best, float32 [P].
        scores: of the detection that confirms a part, float32 [P]; 1 where any box may.
    """

    matches: Tensor
    overlaps: Tensor
    scores: Tensor


def confirm(boxes: Tensor, names: Sequence[str], candidates: Candidates, config: ParserConfig) -> Confirmed:
    """Look for the boxes that confirm transferred parts.

    Args:
        boxes: of the parts, xyxy [P, 4].
        names: P names as they were lent.
        candidates: in the same pixels.
        config: says by which rule, and how much overlap it takes.
    """
    nothing = boxes.new_zeros(len(boxes))
    if not len(candidates.names):
        return Confirmed(
            matches=torch.full_like(nothing, -1, dtype=torch.int64), overlaps=nothing, scores=nothing
        )
    overlaps = box_iou(boxes, candidates.boxes)
    if config.confirmed_by == "box":
        matches, best = best_match(overlaps, config.match_iou)
        return Confirmed(matches=matches, overlaps=best, scores=torch.ones_like(best))
    overlaps = overlaps * _same_part(names, candidates.names, config)
    matches = assign(overlaps, candidates.scores, config.match_iou)
    partners, matched = matches.clamp_min(0), matches >= 0
    own = overlaps.gather(1, partners[:, None])[:, 0]
    return Confirmed(
        matches=matches,
        overlaps=torch.where(matched, own, overlaps.amax(dim=1)),
        scores=torch.where(matched, candidates.scores[partners], nothing),
    )


def best_match(overlaps: Tensor, min_iou: float) -> tuple[Tensor, Tensor]:
    """For every part the candidate that overlaps it most; one candidate may serve several.

    Args:
        overlaps: IoU of P parts with M candidates, [P, M], M > 0.
        min_iou: an overlap of this much or less is no match.

    Returns:
        Candidate rows int64 [P], -1 without a match, and the overlap [P].
    """
    overlap, rows = overlaps.max(dim=1)
    return torch.where(overlap > min_iou, rows, -1), overlap


def assign(overlaps: Tensor, scores: Tensor, min_iou: float) -> Tensor:
    """Partners for as many parts as possible, each detection for one of them.

    Args:
        overlaps: IoU of P parts with M detections, 0 where they may not match, [P, M].
        scores: of the detections, [M].
        min_iou: an overlap of this much or less is no match.

    Returns:
        Detection rows int64 [P], -1 without one; the sum of overlap x score is as large as it can be.
    """
    matches = torch.full((len(overlaps),), -1, dtype=torch.int64)
    worth = torch.where(overlaps > min_iou, overlaps * scores, 0.0)
    for part, detection in zip(*linear_sum_assignment(worth.numpy(), maximize=True), strict=True):
        if worth[part, detection] > 0:
            matches[part] = int(detection)
    return matches


def _same_part(lent: Sequence[str], seen: Sequence[str], config: ParserConfig) -> Tensor:
    """Whether two names are of the same part, of whatever object, bool [len(lent), len(seen)]."""
    words = [[part_word(name, config) for name in names] for names in (lent, seen)]
    pairs = [[a is not None and a == b for b in words[1]] for a in words[0]]
    return torch.tensor(pairs, dtype=torch.bool).reshape(len(lent), len(seen))
