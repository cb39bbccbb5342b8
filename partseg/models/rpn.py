"""The region proposal network: where something might be, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from partseg.models import boxes as box_ops
from partseg.models import initialise
from partseg.models.anchors import cell_anchors, grid_anchors
from partseg.models.config import RpnConfig
from partseg.models.matching import match, sample
from partseg.models.pixels import PixelTable, neighbourhoods, pixel_table
from partseg.models.structures import Proposals

ANCHOR_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAnchors:
    """Some anchors of a batch, [K] int64 each: image, level, row and column of the cell, which shape."""

    image: Tensor
    level: Tensor
    y: Tensor
    x: Tensor
    shape: Tensor


class RpnHead(nn.Module):
    """One convolution, then objectness and box deltas for every anchor; shared by all levels."""

    def __init__(self, *, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels, anchors * 4, kernel_size=1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            initialise.normal(layer, std=0.01)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] to logits [B, H * W * A] and deltas [B, H * W * A, 4], in the order of the anchors."""
        hidden = functional.relu_(self.conv(feature))
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4)
        return logits, deltas

    def at(self, table: PixelTable, anchors: ChosenAnchors) -> tuple[Tensor, Tensor]:
        """Logits [K] and deltas [K, 4] of a few anchors: what :meth:`forward` gives there.

        Only the neighbourhoods of their pixels are looked at, so the gradient costs next to nothing.
        """
        patches = neighbourhoods(table, anchors.level, anchors.image, anchors.y, anchors.x).flatten(1)
        kernel = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        hidden = functional.relu_(functional.linear(patches, kernel, self.conv.bias))
        logits = functional.linear(
            hidden, self.objectness_logits.weight.flatten(1), self.objectness_logits.bias
        )
        deltas = functional.linear(hidden, self.anchor_deltas.weight.flatten(1), self.anchor_deltas.bias)
        each = torch.arange(len(hidden), device=hidden.device)
        return logits[each, anchors.shape], deltas.view(len(hidden), -1, 4)[each, anchors.shape]


class RegionProposalNetwork(nn.Module):
    """Turns a feature pyramid into proposals.

    Args:
        channels: of the pyramid.
        strides: of its levels, in pixels.
        config: anchors, thresholds and counts.
    """

    def __init__(self, *, channels: int, strides: Sequence[int], config: RpnConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        self.rpn_head = RpnHead(channels=channels, anchors=len(config.anchor_ratios))
        for level, size in enumerate(config.anchor_sizes):
            self.register_buffer(f"cell{level}", cell_anchors(size, config.anchor_ratios), persistent=False)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Anchors [M, 4], logits [B, M] and deltas [B, M, 4] of each level."""
        outputs = [self.rpn_head(feature) for feature in features]
        anchors = [
            grid_anchors(feature.shape[2], feature.shape[3], stride, self.get_buffer(f"cell{level}"))
            for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True))
        ]
        return anchors, [logits for logits, _ in outputs], [deltas for _, deltas in outputs]

    def losses(
        self, features: Sequence[Tensor], anchors: Sequence[Tensor], truth: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Objectness and box losses, both divided by (samples per image x images).

        Only sampled anchors have a loss, so only these are computed with a gradient.

        Args:
            features: per level [B, C, H, W].
            anchors: per level [M, 4].
            truth: per image [N, 4] xyxy px.
        """
        all_anchors = torch.cat(list(anchors))
        positives, negatives, targets = [], [], []
        for image, boxes in enumerate(truth):
            index, positive, negative = self._label(all_anchors, boxes)
            offset = image * len(all_anchors)
            positives.append(positive + offset)
            negatives.append(negative + offset)
            if len(boxes):
                targets.append(box_ops.encode(all_anchors[positive], boxes[index[positive]], ANCHOR_WEIGHTS))
        chosen = torch.cat(positives + negatives)
        count = sum(map(len, positives))
        logits, deltas = self.rpn_head.at(pixel_table(features), self._place(features, chosen))
        wanted = (torch.arange(len(chosen), device=chosen.device) < count).to(logits.dtype)
        objectness = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        predicted = deltas[:count]
        target = torch.cat(targets) if targets else predicted.detach()
        norm = self.config.samples_per_image * len(truth)
        return {"loss_rpn_cls": objectness / norm, "loss_rpn_loc": (predicted - target).abs().sum() / norm}

    def _place(self, features: Sequence[Tensor], chosen: Tensor) -> ChosenAnchors:
        """Where anchors [K] are, counted over levels as :meth:`forward` lists them and then over images."""
        shapes = len(self.config.anchor_ratios)
        device = chosen.device
        width = torch.tensor([f.shape[3] for f in features], device=device)
        end = torch.tensor([f.shape[2] * f.shape[3] for f in features], device=device).cumsum(0)
        total = int(end[-1])
        cell = torch.div(chosen, shapes, rounding_mode="floor")
        image, cell = torch.div(cell, total, rounding_mode="floor"), cell % total
        level = torch.bucketize(cell, end, right=True)
        cell = cell - functional.pad(end, (1, 0))[level]
        y = torch.div(cell, width[level], rounding_mode="floor")
        return ChosenAnchors(image=image, level=level, y=y, x=cell - y * width[level], shape=chosen % shapes)

    def _label(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        index, state = match(
            box_ops.pairwise_iou(boxes, anchors),
            negative=config.negative_iou,
            positive=config.positive_iou,
            low_quality=True,
        )
        positive, negative = sample(
            state, count=config.samples_per_image, positive_fraction=config.positive_fraction
        )
        return index, positive, negative

    @torch.no_grad()
    def propose(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[Proposals]:
        """The best regions of each image after non-maximum suppression within each level.

        Args:
            anchors: per level [M, 4].
            logits: per level [B, M].
            deltas: per level [B, M, 4].
            sizes: (height, width) of each image without padding.
        """
        config = self.config
        limit = config.candidates_per_level_train if self.training else config.candidates_per_level_test
        keep = config.proposals_train if self.training else config.proposals_test
        boxes, scores, levels = [], [], []
        for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
            best, rows = logit.topk(min(limit, logit.shape[1]), dim=1)
            picked = delta.gather(1, rows[:, :, None].expand(-1, -1, 4))
            decoded = box_ops.decode(anchor[rows].flatten(0, 1), picked.flatten(0, 1), ANCHOR_WEIGHTS)
            boxes.append(decoded.view(len(logit), -1, 4))
            scores.append(best.float())
            levels.append(torch.full_like(rows, level))
        all_boxes, all_scores, all_levels = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
        return [
            self._select(*one, size=size, keep=keep)
            for *one, size in zip(all_boxes, all_scores, all_levels, sizes, strict=True)
        ]

    def _select(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, *, size: tuple[int, int], keep: int
    ) -> Proposals:
        boxes_inside = box_ops.clip(boxes, *size)
        valid = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores) & box_ops.non_empty(boxes_inside)
        boxes, scores, levels = boxes_inside[valid], scores[valid], levels[valid]
        kept = batched_nms(boxes, scores, levels, self.config.nms_iou)[:keep]
        return Proposals(boxes=boxes[kept], logits=scores[kept], size=size)
