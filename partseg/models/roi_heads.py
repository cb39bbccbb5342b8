"""Regions: pooled from the pyramid, named, corrected and, mostly, masked, in one stage or in a cascade.

Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from partseg.models import boxes as box_ops
from partseg.models import losses
from partseg.models.config import CascadeStage, InferenceConfig, LossConfig, RoiConfig
from partseg.models.heads import BoxHead, BoxPredictor, MaskHead
from partseg.models.masks import mask_targets
from partseg.models.nms import best_per_class
from partseg.models.roi_align import pool_regions
from partseg.models.samples import Samples, choose, label
from partseg.models.structures import Proposals, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutput:
    """What one stage makes of the regions of all images.

    Attributes:
        boxes: per image [K, 4] xyxy px, the regions it looked at.
        logits: [sum of K, C + 1].
        deltas: [sum of K, 4], the corrections it proposes.
    """

    boxes: list[Tensor]
    logits: Tensor
    deltas: Tensor

    def logits_by_image(self) -> list[Tensor]:
        """The logits [K, C + 1] of each image."""
        return list(torch.split(self.logits, [len(boxes) for boxes in self.boxes]))


class RoiHeads(nn.Module):
    """Pools regions from the pyramid and predicts class, box and, with a mask head, mask.

    With a cascade, each stage has a box head of its own and looks at the boxes the stage before
    has corrected. The names of its tensors and losses then carry the stage's number: ``box_head.0.fc1``,
    ``loss_cls_stage0``.

    Args:
        channels: of the pyramid.
        strides: of the levels regions are pooled from, in pixels.
        text_dim: length of a class embedding.
        temperature: of the classifier.
        config: sizes, sampling and stages.
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
        first = CascadeStage(positive_iou=config.positive_iou, box_weights=config.box_weights)
        self.stages = (first, *config.cascade)
        heads = [
            BoxHead(in_features=channels * config.box_pool**2, channels=config.box_channels)
            for _ in self.stages
        ]
        predictors = [
            BoxPredictor(channels=config.box_channels, text_dim=text_dim, temperature=temperature)
            for _ in self.stages
        ]
        self.box_head = nn.ModuleList(heads) if config.cascade else heads[0]
        self.box_predictor = nn.ModuleList(predictors) if config.cascade else predictors[0]
        self.mask_head: MaskHead | None = None
        if config.masks:
            self.mask_head = MaskHead(
                in_channels=channels, channels=config.mask_channels, convs=config.mask_convs
            )

    def predict(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], text: Tensor, stage: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Class logits [N, C + 1] and box deltas [N, 4] of the regions of all images."""
        pooled = self._pool(features, boxes, self.config.box_pool)
        suffix = ""
        if self.config.cascade:
            suffix = f".{stage}"
            if pooled.requires_grad:
                # All stages read the same pyramid: together they shall move it no more than one.
                pooled.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: gradient * (1.0 / len(self.stages))
                )
        regions = self.get_submodule(f"box_head{suffix}")(pooled)
        predictor = self.get_submodule(f"box_predictor{suffix}")
        return cast("tuple[Tensor, Tensor]", predictor(regions, text))

    def mask_logits(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits [N, m, m] of the regions of all images, each over the extent of its box.

        Only with a mask head.
        """
        assert self.mask_head is not None
        return cast(Tensor, self.mask_head(self._pool(features, boxes, self.config.mask_pool)))

    def part_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        text: Tensor,
        image_counts: Tensor | None,
    ) -> dict[str, Tensor]:
        """Losses of data with boxes and, where they are given and there is a mask head, masks."""
        first = self._choose(proposals, targets, len(text))
        samples, result = first, {}
        for stage, output in enumerate(self._run(features, [s.boxes for s in first], proposals, text)):
            if stage:
                samples = self._relabel(output.boxes, targets, len(text), stage)
            labels = torch.cat([s.labels for s in samples])
            weight = None
            if image_counts is not None:
                weight = losses.federated_weight(
                    labels,
                    image_counts,
                    classes=self.loss_config.federated_classes,
                    power=self.loss_config.federated_power,
                )
            truth = [t.boxes[s.rows[s.foreground]] for s, t in zip(samples, targets, strict=True)]
            result[self._name("loss_cls", stage)] = losses.classification(output.logits, labels, weight)
            result[self._name("loss_box_reg", stage)] = losses.box_regression(
                output.deltas[torch.nonzero(labels < len(text)).squeeze(1)],
                torch.cat([s.boxes[s.foreground] for s in samples]),
                torch.cat(truth),
                self.stages[stage].box_weights,
                len(labels),
            )
        masks = [t.masks for t in targets if t.masks is not None]
        if self.mask_head is not None and len(masks) == len(targets):
            # Masks are learnt in the regions of the first stage, and used (see detect) in those of the last.
            regions = [s.boxes[s.foreground] for s in first]
            target = mask_targets(
                masks, regions, [s.rows[s.foreground] for s in first], 2 * self.config.mask_pool
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
        result = {}
        by_score = self.loss_config.parsed_part_rule == "max_score"
        # Unless the best score decides, regions are sampled as usual, but only their class is learnt.
        samples = [] if by_score else self._choose(proposals, targets, len(text))
        boxes = self._best(proposals) if by_score else [s.boxes for s in samples]
        for stage, output in enumerate(self._run(features, boxes, proposals, text)):
            if by_score:
                loss = losses.highest_scores(output.logits_by_image(), [t.labels for t in targets])
            else:
                if stage:
                    samples = self._relabel(output.boxes, targets, len(text), stage)
                loss = losses.classification(output.logits, torch.cat([s.labels for s in samples]))
            result[self._name("loss_parsed_part", stage)] = self.loss_config.parsed_part * loss
        return result

    def image_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        text: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of labels of whole images."""
        result = {}
        for stage, output in enumerate(self._run(features, self._best(proposals), proposals, text)):
            loss = losses.image_labels(
                output.logits_by_image(),
                output.boxes,
                [t.labels for t in targets],
                skip_last=self.loss_config.image_skips_last,
            )
            result[self._name("loss_image", stage)] = self.loss_config.image * loss
        return result

    def refine(
        self, features: Sequence[Tensor], proposals: Sequence[Proposals], text: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Corrected boxes [P, 4] and class scores [P, C] of each image.

        A score is the geometric mean of objectness and class probability, the mean over the stages.
        """
        outputs = list(self._run(features, [p.boxes for p in proposals], proposals, text))
        probability = torch.stack([output.logits[:, :-1].sigmoid() for output in outputs]).mean(dim=0)
        objectness = torch.cat([p.logits for p in proposals]).sigmoid()
        scores = (probability * objectness[:, None]).sqrt().float()
        boxes = box_ops.decode(torch.cat(outputs[-1].boxes), outputs[-1].deltas, self.stages[-1].box_weights)
        counts = [len(p.boxes) for p in proposals]
        return list(torch.split(boxes, counts)), list(torch.split(scores, counts))

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
        kept = best_per_class(boxes, scores, label, iou=options.nms_iou, limit=options.detections)
        return boxes[kept], scores[kept], label[kept]

    def _name(self, loss: str, stage: int) -> str:
        return f"{loss}_stage{stage}" if self.config.cascade else loss

    def _best(self, proposals: Sequence[Proposals]) -> list[Tensor]:
        return [p.best(self.loss_config.image_proposals).boxes for p in proposals]

    def _run(
        self,
        features: Sequence[Tensor],
        boxes: list[Tensor],
        proposals: Sequence[Proposals],
        text: Tensor,
    ) -> Iterator[StageOutput]:
        """One stage after the other, each on the boxes the one before has corrected."""
        for stage, settings in enumerate(self.stages):
            logits, deltas = self.predict(features, boxes, text, stage)
            yield StageOutput(boxes=boxes, logits=logits, deltas=deltas)
            if stage + 1 < len(self.stages):
                moved = box_ops.decode(torch.cat(boxes), deltas.detach(), settings.box_weights)
                boxes = [
                    box_ops.clip(image_boxes, *p.size)
                    for image_boxes, p in zip(
                        torch.split(moved, [len(b) for b in boxes]), proposals, strict=True
                    )
                ]
                if self.training:  # in evaluation the stages' scores must stay aligned
                    boxes = [b[box_ops.non_empty(b)] for b in boxes]

    def _choose(
        self, proposals: Sequence[Proposals], targets: Sequence[Target], classes: int
    ) -> list[Samples]:
        return [
            choose(proposal.boxes, target, classes, self.config)
            for proposal, target in zip(proposals, targets, strict=True)
        ]

    def _relabel(
        self, boxes: Sequence[Tensor], targets: Sequence[Target], classes: int, stage: int
    ) -> list[Samples]:
        iou = self.stages[stage].positive_iou
        return [label(b, target, classes, iou)[0] for b, target in zip(boxes, targets, strict=True)]

    def _pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """Regions [N, C, size, size], each read from the level that suits its size."""
        image = torch.repeat_interleave(
            torch.arange(len(boxes), device=features[0].device),
            torch.tensor([len(b) for b in boxes], device=features[0].device),
        )
        regions = torch.cat([image[:, None], torch.cat(list(boxes))], dim=1)
        return pool_regions(features, self.strides, regions, self._levels(regions[:, 1:]), size)

    def _levels(self, boxes: Tensor) -> Tensor:
        """Level of each box: a region of the canonical size is read at stride 16, one half as large at 8."""
        side = box_ops.area(boxes).clamp(min=0).sqrt()
        level = torch.floor(4 + torch.log2(side / self.config.canonical_size + 1e-8))
        first = self.strides[0].bit_length() - 1
        return level.clamp(first, first + len(self.strides) - 1).long() - first
