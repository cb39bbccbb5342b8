"""VLPart: a detector of objects and parts whose classes are texts.

Sun et al., "Going Denser with Open-Vocabulary Part Segmentation", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from partseg.models import boxes as box_ops
from partseg.models.backbones import STRIDES, Backbone, TimmBackbone
from partseg.models.config import BackboneConfig, InferenceConfig, ModelConfig
from partseg.models.fpn import FeaturePyramid
from partseg.models.images import resize, resized_shape, to_batch
from partseg.models.masks import paste
from partseg.models.roi_heads import RoiHeads
from partseg.models.rpn import RegionProposalNetwork
from partseg.models.structures import Batch, Detections, Proposals, ProposedBoxes
from partseg.models.swin import SwinBackbone


class VLPart(nn.Module):
    """A feature pyramid, a proposal network and region heads with an open vocabulary.

    Args:
        backbone: the pyramid, strides 4 to 64.
        proposal_generator: the proposal network.
        roi_heads: the region heads.
        config: what the three were built from; its ``inference`` part is the default of :meth:`detect`.
    """

    def __init__(
        self,
        *,
        backbone: FeaturePyramid,
        proposal_generator: RegionProposalNetwork,
        roi_heads: RoiHeads,
        config: ModelConfig,
    ) -> None:
        super().__init__()
        self.backbone, self.proposal_generator, self.roi_heads = backbone, proposal_generator, roi_heads
        self.config = config
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch, *, amp: torch.dtype | None = None) -> dict[str, Tensor]:
        """The losses of a batch, already weighted: their sum is what is minimised.

        Args:
            batch: images and targets on the model's device.
            amp: a 16-bit type for the backbone and the pyramid; the heads always run in float32, as
                published.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in batch.images]
        features = self._features(batch.images, amp)
        with torch.no_grad():  # its own losses look at sampled anchors only
            anchors, logits, deltas = self.proposal_generator(features)
            proposals = self.proposal_generator.propose(anchors, logits, deltas, sizes)
        pooled = features[: len(STRIDES)]
        if batch.annotation == "box":
            truth = [target.boxes for target in batch.targets]
            return {
                **self.roi_heads.part_losses(
                    pooled, proposals, batch.targets, batch.text, batch.image_counts
                ),
                **self.proposal_generator.losses(features, anchors, truth),
            }
        heads = (
            self.roi_heads.image_losses if batch.annotation == "image" else self.roi_heads.parsed_part_losses
        )
        # The proposal network gets gradients of zero, so that the optimiser decays it as in the published
        # training, where its losses are computed and multiplied by 0.
        nothing = torch.stack([p.sum() for p in self.proposal_generator.parameters()]).sum() * 0
        return {**heads(pooled, proposals, batch.targets, batch.text), "loss_rpn_cls": nothing}

    @torch.no_grad()
    def detect(
        self,
        images: Sequence[Tensor],
        text: Tensor,
        options: InferenceConfig | None = None,
        *,
        amp: torch.dtype | None = None,
    ) -> list[Detections]:
        """Find objects and parts.

        Args:
            images: uint8 RGB [3, H, W] each, original size.
            text: [C, D] embeddings of the classes to look for.
            options: sizes and thresholds; the model's own where not given.
            amp: a 16-bit type for the backbone and the pyramid.

        Returns:
            One result per image, in the pixels of the original image.
        """
        options = options or self.config.inference
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        small = [_resized(image, options) for image in images]
        return self.detect_resized(small, text, sizes, options, amp=amp)

    @torch.no_grad()
    def detect_resized(
        self,
        images: Sequence[Tensor],
        text: Tensor,
        sizes: Sequence[tuple[int, int]],
        options: InferenceConfig | None = None,
        *,
        amp: torch.dtype | None = None,
    ) -> list[Detections]:
        """Like :meth:`detect` for images of the network's size; ``sizes`` = (H, W) of the results."""
        options = options or self.config.inference
        shapes = [(image.shape[1], image.shape[2]) for image in images]
        features, proposals = self._proposals(images, amp)
        refined, scores = self.roi_heads.refine(features, proposals, text.to(self.pixel_mean.device))
        chosen = [
            self.roi_heads.select(boxes, score, size=shape, options=options)
            for boxes, score, shape in zip(refined, scores, shapes, strict=True)
        ]
        masks: Sequence[Tensor | None] = [None] * len(chosen)
        if self.config.roi.masks:
            logits = self.roi_heads.mask_logits(features, [boxes for boxes, _, _ in chosen])
            masks = torch.split(logits.sigmoid().float(), [len(boxes) for boxes, _, _ in chosen])
        return [
            _detections(*found, mask, shape, size, options.mask_threshold)
            for found, mask, shape, size in zip(chosen, masks, shapes, sizes, strict=True)
        ]

    @torch.no_grad()
    def propose(
        self,
        images: Sequence[Tensor],
        text: Tensor,
        *,
        limit: int = 512,
        options: InferenceConfig | None = None,
    ) -> list[ProposedBoxes]:
        """The best regions of each image with their class-agnostic corrections.

        Args:
            images: uint8 RGB [3, H, W] each, original size.
            text: [C, D] embeddings; only ``class_scores`` depends on them.
            limit: how many regions per image.
            options: the sizes the images are resized to; the model's own where not given.
        """
        options = options or self.config.inference
        resized = [_resized(image, options) for image in images]
        features, found = self._proposals(resized)
        best = [p.best(limit) for p in found]
        refined, scores = self.roi_heads.refine(features, best, text.to(self.pixel_mean.device))
        result = []
        for image, small, proposal, boxes, score in zip(images, resized, best, refined, scores, strict=True):
            scale = _scale(small.shape[1:], image.shape[1:], boxes)
            result.append(
                ProposedBoxes(
                    proposals=(proposal.boxes * scale).cpu(),
                    refined=(box_ops.clip(boxes, small.shape[1], small.shape[2]) * scale).cpu(),
                    objectness=proposal.logits.sigmoid().cpu(),
                    class_scores=score.cpu(),
                )
            )
        return result

    def _features(self, images: Sequence[Tensor], amp: torch.dtype | None = None) -> list[Tensor]:
        batch = to_batch(images, self.pixel_mean, self.pixel_std).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(batch.device.type, dtype=amp, enabled=amp is not None):
            features = self.backbone(batch)
        return [feature.to(self.pixel_mean.dtype) for feature in features]

    def _proposals(
        self, images: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Tensor], list[Proposals]]:
        features = self._features(images, amp)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        anchors, logits, deltas = self.proposal_generator(features)
        proposals = self.proposal_generator.propose(anchors, logits, deltas, sizes)
        return features[: len(STRIDES)], proposals


def build_model(config: ModelConfig) -> VLPart:
    """A detector with random weights.

    Raises:
        RecipeError: timm does not have the backbone, or it lacks a level the pyramid needs.
    """
    pyramid = FeaturePyramid(bottom_up=build_backbone(config.backbone), channels=config.pyramid_channels)
    model = VLPart(
        backbone=pyramid,
        proposal_generator=RegionProposalNetwork(
            channels=config.pyramid_channels, strides=pyramid.strides, config=config.rpn
        ),
        roi_heads=RoiHeads(
            channels=config.pyramid_channels,
            strides=STRIDES,
            text_dim=config.text_dim,
            temperature=config.temperature,
            config=config.roi,
            loss_config=config.losses,
        ),
        config=config,
    )
    # Channels last: a backbone measured 1.2 to 1.5 times faster on a CPU, and tensor cores want it too.
    return model.to(memory_format=torch.channels_last)


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network below a detector's pyramid, with random weights.

    Raises:
        RecipeError: timm does not have it, or it lacks a level the pyramid needs.
    """
    if config.name.startswith("swin_"):
        return SwinBackbone(name=config.name, frozen_stages=config.frozen_stages, drop_path=config.drop_path)
    return TimmBackbone(
        name=config.name,
        norm=config.norm,
        frozen_stages=config.frozen_stages,
        drop_path=config.drop_path,
    )


def _resized(image: Tensor, options: InferenceConfig) -> Tensor:
    height, width = resized_shape(image.shape[1], image.shape[2], options.short_side, options.long_side)
    pixels = resize(image.cpu().permute(1, 2, 0).contiguous().numpy(), height, width)
    # A copy: Pillow's buffer is read-only, and torch tensors must not be.
    return torch.tensor(pixels).permute(2, 0, 1)


def _scale(shape: Sequence[int], size: Sequence[int], like: Tensor) -> Tensor:
    """[4] factors that take xyxy boxes from an image of one (height, width) to another."""
    x, y = size[1] / shape[1], size[0] / shape[0]
    return like.new_tensor([x, y, x, y])


def _detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    masks: Tensor | None,
    shape: tuple[int, int],
    size: tuple[int, int],
    threshold: float,
) -> Detections:
    """Detections taken from the network's pixels (``shape``) to the original's (``size``)."""
    height, width = size
    boxes = box_ops.clip(boxes * _scale(shape, size, boxes), height, width)
    kept = box_ops.non_empty(boxes)
    boxes = boxes[kept]
    rles: Sequence[bytes | None] = [None] * len(boxes)
    if masks is not None:
        rles = paste(masks[kept], boxes, height, width, threshold)
    return Detections(
        boxes=boxes.cpu(),
        scores=scores[kept].cpu(),
        labels=labels[kept].cpu(),
        rles=tuple(rles),
        height=height,
        width=width,
    )
