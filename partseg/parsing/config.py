"""How images are described and parsed, as data. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ViTConfig(BaseModel):
    """A vision transformer: one of timm's by its name, or a plain one by its sizes.

    The default sizes are those of DINO's ViT-S/8 (``vit_small_patch8_224``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Of timm's models, for instance vit_small_patch14_reg4_dinov2 or vit_small_patch16_dinov3; all sizes are
    # timm's then.
    name: str | None = Field(default=None, min_length=1)
    patch_size: int = Field(default=8, ge=1)
    dim: int = Field(default=384, ge=8)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=6, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    # Channels of convolutions in front of the patches, each of which halves the image; none in DINO. Xiao et
    # al., "Early Convolutions Help Transformers See Better" (2021): a short training gets much further.
    stem: tuple[int, ...] = ()
    image_size: int = Field(default=224, ge=8)  # side of the square image the position grid belongs to

    @model_validator(mode="after")
    def _named_or_sized(self) -> Self:
        fields = type(self).model_fields
        sized = [key for key in fields if key != "name" and getattr(self, key) != fields[key].default]
        if self.name and sized:
            raise ValueError(f"{sized[0]}: the sizes of {self.name} are timm's; leave it out")
        return self


class PictureSize(BaseModel):
    """How large an image is looked at. The defaults are the published ones, but for IN-S20."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_side: int = Field(default=224, ge=8)  # pixels; 336 for IN-S20
    long_side: int = Field(default=672, ge=8)  # pixels, at most; 996 for IN-S20


class DescriptorConfig(PictureSize):
    """How descriptors are read from a vision transformer. The defaults are the published ones."""

    stride: int = Field(default=4, ge=1)  # pixels between patches; the patch size means no overlap
    saliency_heads: tuple[int, ...] = (0, 2, 4, 5)
    saliency_threshold: float = Field(default=0.05, ge=0, le=1)


class PretrainConfig(BaseModel):
    """Size of the model and how long it learns. The defaults take some 25 s of processor time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vit: ViTConfig = ViTConfig(patch_size=8, dim=96, depth=2, heads=3, stem=(24, 48), image_size=128)
    iterations: int = Field(default=250, ge=1)
    batch: int = Field(default=16, ge=2)  # images
    crop: int = Field(default=96, ge=16)  # pixels of a view's side
    smallest_crop: float = Field(default=0.4, gt=0, le=1)  # of the image's area
    rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    label_weight: float = Field(default=0.3, ge=0)
    part_weight: float = Field(default=1.0, ge=0)
    place_weight: float = Field(default=0.0, ge=0)
    places: int = Field(default=48, ge=2)  # compared per image
    temperature: float = Field(default=0.1, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if self.vit.name:
            raise ValueError("vit: only a transformer given by its sizes can be trained here")
        return self


class ParserConfig(BaseModel):
    """What counts as a found part. The defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score_threshold: float = Field(default=0.7, ge=0, le=1)  # detections above it are kept
    nms_iou: float = Field(default=0.3, gt=0, le=1)
    max_detections: int = Field(default=100, ge=1)
    proposals: int = Field(default=512, ge=1)  # of the detector, to confirm transferred boxes
    match_iou: float = Field(default=0.3, ge=0, le=1)  # a transferred box needs more overlap than this
    # What confirms a transferred part: any box of the detector, as published, or something that the detector
    # itself takes for that part, of whatever object, with at least this score; each of those confirms at most
    # one part. The second is for descriptors that are often wrong.
    confirmed_by: Literal["box", "detection"] = "box"
    confirming_score: float = Field(default=0.3, ge=0, le=1)
    # VLPart ranks these candidates by the score of whatever class comes first in the vocabulary.
    candidates_ranked_by: Literal["first_class", "objectness"] = "first_class"
    # The published detector sees the picture after it was made small for the descriptors, enlarged again
    # without rounding; see partseg.parsing.detector.enlarged.
    detector_sees: Literal["original", "descriptor"] = "descriptor"
    separator: str = Field(default=":", min_length=1)  # between object and part in category names
    # What a part is renamed by: all that follows the separator, or, as published for PartImageNet, the first
    # word of it. "Car:Side Mirror" is a "side" then, which no vocabulary has.
    part_word: Literal["all", "first"] = "all"
    # From here on: beyond the published parser, and off unless asked for.
    # How many base images lend parts to one image, the most similar first. Their parts of one name vote: a
    # patch belongs to the part if at least this share of the lenders that have such a part say so.
    neighbours: int = Field(default=1, ge=1)
    vote_share: float = Field(default=0.5, gt=0, le=1)
    # A patch takes part only if the query patch that its partner in the base image resembles most lies within
    # so many patches of it, in rows and in columns; 0 asks for the very same patch.
    mutual_within: int | None = Field(default=None, ge=0)
    # Base images that are less similar than this, by the cosine of class tokens, lend nothing.
    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    # Less certain parts are left out. Of the detector, by their score; for transferred ones, see
    # partseg.parsing.parts.transfer_confidence.
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    # Of each label, at most so many images are kept: those whose parts are the most certain.
    images_per_class: int | None = Field(default=None, ge=1)
