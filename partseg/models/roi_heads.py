"""What looks at one region at a time: its class by text, its exact box, its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, roi_align

from partseg.models import boxes as box_ops
from partseg.models import initialise, losses
from partseg.models.classifier import TextClassifier
from partseg.models.config import InferenceConfig, LossConfig, RoiConfig
from partseg.models.masks import mask_targets
from partseg.models.matching import match, sample
from partseg.models.structures import Proposals, Target


class BoxHead(nn.Module):
    """Two fully connected layers over the pooled region."""

    def __init__(self, *, in_features: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, channels)
        self.fc2 = nn.Linear(channels, channels)
        initialise.xavier(self.fc1)
        initialise.xavier(self.fc2)

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, C, s, s] to [N, channels]."""
        hidden = functional.relu(self.fc1(pooled.flatten(1)))
        return functional.relu(self.fc2(hidden))


class BoxPredictor(nn.Module):
    """Class logits by text, and one box correction whatever the class."""

    def __init__(self, *, channels: int, text_dim: int, temperature: float) -> None:
        super().__init__()
        self.cls_score = TextClassifier(in_features=channels, text_dim=text_dim, temperature=temperature)
        first, last = nn.Linear(channels, channels), nn.Linear(channels, 4)
        initialise.xavier(first)
        initialise.normal(last, std=0.001)
        self.bbox_pred = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, regions: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """[N, channels] to logits [N, C + 1] and deltas [N, 4]."""
        return self.cls_score(regions, text), self.bbox_pred(regions)


class MaskHead(nn.Module):
    """A few convolutions, an upsampling and one mask whatever the class."""

    def __init__(self, *, in_channels: int, channels: int, convs: int) -> None:
        super().__init__()
        self.convs = convs
        for i in range(1, convs + 1):
            conv = nn.Conv2d(in_channels if i == 1 else channels, channels, kernel_size=3, padding=1)
            initialise.msra(conv)
            self.add_module(f"mask_fcn{i}", conv)
        self.deconv = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        initialise.msra(self.deconv)
        self.predictor = nn.Conv2d(channels, 1, kernel_size=1)
        initialise.normal(self.predictor, std=0.001)

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, C, s, s] to logits [N, 2s, 2s]."""
        for i in range(1, self.convs + 1):
            pooled = functional.relu(self.get_submodule(f"mask_fcn{i}")(pooled))
        logits: Tensor = self.predictor(functional.relu(self.deconv(pooled)))
        return logits[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Regions of one image chosen for training; foreground first.

    Attributes:
        boxes: [K, 4] xyxy px.
        labels: [K] int64; the number of classes is background.
        rows: [K] int64, the ground truth each region was matched with.
        foreground: how many regions, from the start, are foreground.
    """

    boxes: Tensor
    labels: Tensor
    rows: Tensor
    foreground: int


class RoiHeads(nn.Module):
    """Pools regions from the pyramid and predicts class, box and mask.

    Args:
        channels: of the pyramid.
        strides: of the levels regions are pooled from, in pixels.
        text_dim: length of a class embedding.
        temperature: of the classifier.
        config: sizes and sampling.
        loss_config: weights and rules of the losses.
    """

    def __init__(
        self,
        *,
        channels: int,
        strides: Sequence[int],
        text_dim: int,
        temperature: float,
        config: RoiConfig,
        loss_config: LossConfig,
    ) -> None:
        super().__init__()
        self.config, self.loss_config, self.strides = config, loss_config, tuple(strides)
        self.box_head = BoxHead(in_features=channels * config.box_pool**2, channels=config.box_channels)
        self.box_predictor = BoxPredictor(
            channels=config.box_channels, text_dim=text_dim, temperature=temperature
        )
        self.mask_head = MaskHead(
            in_channels=channels, channels=config.mask_channels, convs=config.mask_convs
        )

    def predict(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Class logits [N, C + 1] and box deltas [N, 4] of the regions of all images."""
        pooled = self._pool(features, boxes, self.config.box_pool)
        return cast("tuple[Tensor, Tensor]", self.box_predictor(self.box_head(pooled), text))

    def mask_logits(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits [N, m, m] of the regions of all images, each over the extent of its box."""
        return cast(Tensor, self.mask_head(self._pool(features, boxes, self.config.mask_pool)))

    def part_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        text: Tensor,
        image_counts: Tensor | None,
    ) -> dict[str, Tensor]:
        """Losses of data with boxes and, where they are given, masks."""
        samples = [self.choose(p, t, len(text)) for p, t in zip(proposals, targets, strict=True)]
        logits, deltas = self.predict(features, [s.boxes for s in samples], text)
        labels = torch.cat([s.labels for s in samples])
        weight = None
        if image_counts is not None:
            weight = losses.federated_weight(
                labels,
                image_counts,
                classes=self.loss_config.federated_classes,
                power=self.loss_config.federated_power,
            )
        foreground = torch.nonzero(labels < len(text)).squeeze(1)
        regions = [s.boxes[: s.foreground] for s in samples]
        truth = [t.boxes[s.rows[: s.foreground]] for s, t in zip(samples, targets, strict=True)]
        result = {
            "loss_cls": losses.classification(logits, labels, weight),
            "loss_box_reg": losses.box_regression(
                deltas[foreground],
                torch.cat(regions),
                torch.cat(truth),
                self.config.box_weights,
                len(labels),
            ),
        }
        masks = [t.masks for t in targets if t.masks is not None]
        if len(masks) == len(targets):
            target = mask_targets(
                masks, regions, [s.rows[: s.foreground] for s in samples], 2 * self.config.mask_pool
            )
            result["loss_mask"] = self.loss_config.mask * losses.mask(
                self.mask_logits(features, regions), target
            )
        return result

    def parsed_part_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        text: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of parts the parser wrote, in the published form the configuration names."""
        weight = self.loss_config.parsed_part
        if self.loss_config.parsed_part_rule == "max_score":
            boxes = [p.boxes[: self.loss_config.image_proposals] for p in proposals]
            logits, _ = self.predict(features, boxes, text)
            loss = losses.highest_scores(
                list(torch.split(logits, [len(b) for b in boxes])), [t.labels for t in targets]
            )
            return {"loss_parsed_part": weight * loss}
        # Regions are sampled as usual, but only their class is learnt.
        samples = [self.choose(p, t, len(text)) for p, t in zip(proposals, targets, strict=True)]
        logits, _ = self.predict(features, [s.boxes for s in samples], text)
        loss = losses.classification(logits, torch.cat([s.labels for s in samples]))
        return {"loss_parsed_part": weight * loss}

    def image_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        text: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of labels of whole images."""
        boxes = [p.boxes[: self.loss_config.image_proposals] for p in proposals]
        logits, _ = self.predict(features, boxes, text)
        loss = losses.image_labels(
            list(torch.split(logits, [len(b) for b in boxes])),
            boxes,
            [t.labels for t in targets],
            skip_last=self.loss_config.image_skips_last,
        )
        return {"loss_image": self.loss_config.image * loss}

    @torch.no_grad()
    def choose(self, proposals: Proposals, target: Target, classes: int) -> Samples:
        """Label the proposals, the ground truth among them, and draw the regions to learn from."""
        boxes = torch.cat([proposals.boxes, target.boxes])
        rows, state = match(
            box_ops.pairwise_iou(target.boxes, boxes),
            negative=self.config.positive_iou,
            positive=self.config.positive_iou,
            low_quality=False,
        )
        positive, negative = sample(
            state, count=self.config.samples_per_image, positive_fraction=self.config.positive_fraction
        )
        background = torch.full_like(negative, classes)
        labels = torch.cat([target.labels[rows[positive]], background])
        chosen = torch.cat([positive, negative])
        return Samples(boxes=boxes[chosen], labels=labels, rows=rows[chosen], foreground=len(positive))

    def class_scores(self, logits: Tensor, objectness: Tensor) -> Tensor:
        """[N, C] in 0..1: the geometric mean of class probability and objectness."""
        return (logits[:, :-1].sigmoid() * objectness.sigmoid()[:, None]).sqrt()

    def select(
        self, boxes: Tensor, scores: Tensor, *, size: tuple[int, int], options: InferenceConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of one image: boxes [K, 4], scores [K] and labels [K], best first.

        Args:
            boxes: [P, 4] xyxy px, the corrected regions.
            scores: [P, C].
            size: (height, width) boxes are clipped to.
            options: thresholds.
        """
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
        boxes, scores = box_ops.clip(boxes[finite], *size), scores[finite]
        region, label = torch.nonzero(scores > options.score_threshold, as_tuple=True)
        boxes, scores = boxes[region], scores[region, label]
        kept = batched_nms(boxes, scores, label, options.nms_iou)[: options.detections]
        return boxes[kept], scores[kept], label[kept]

    def _pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """Regions [N, C, size, size], each read from the level that suits its size."""
        image = torch.repeat_interleave(
            torch.arange(len(boxes), device=features[0].device),
            torch.tensor([len(b) for b in boxes], device=features[0].device),
        )
        rois = torch.cat([image[:, None].to(features[0].dtype), torch.cat(list(boxes))], dim=1)
        level = self._levels(rois[:, 1:])
        pooled = features[0].new_zeros(len(rois), features[0].shape[1], size, size)
        for i, stride in enumerate(self.strides):
            rows = torch.nonzero(level == i).squeeze(1)
            cut = roi_align(features[i], rois[rows], size, 1.0 / stride, -1, aligned=True)
            pooled = pooled.index_put((rows,), cut)
        return pooled

    def _levels(self, boxes: Tensor) -> Tensor:
        """Level of each box: a region of the canonical size is read at stride 16, one half as large at 8."""
        side = box_ops.area(boxes).clamp(min=0).sqrt()
        level = torch.floor(4 + torch.log2(side / self.config.canonical_size + 1e-8))
        first = self.strides[0].bit_length() - 1
        return level.clamp(first, first + len(self.strides) - 1).long() - first
