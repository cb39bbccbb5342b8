"""What a training does, as data. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from partseg.errors import TrainingError
from partseg.layout import Dataset, Split
from partseg.models.config import ModelConfig

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
AnnotationKind = Literal["box", "image", "parsed_part"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleConfig(_Strict):
    """Optimiser and learning rate. The defaults are the published ones (AdamW on every parameter alike).

    Attributes:
        iterations: how many updates of the weights.
        batches: batches behind one update, their gradients averaged; as many as the published training had
            GPUs. Processes share them, so that any number of processes that divides it trains alike.
        learning_rate: after the warm-up.
        backbone_multiplier: the backbone's learning rate relative to the others'.
        weight_decay: of every parameter, biases and norms included.
        warmup: iterations during which the rate rises linearly.
        warmup_factor: the rate starts at this part of ``learning_rate``.
        steps: iterations at which the rate is multiplied by ``step_factor``.
        gradient_clip: largest norm of all gradients together; None leaves them alone.
        ema: decay per update of a running mean of the weights, which then is the result; None keeps none.
    """

    iterations: Count
    batches: Count = 1
    learning_rate: Positive = 5e-5
    backbone_multiplier: Annotated[float, Field(ge=0.0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    warmup: Annotated[int, Field(ge=0)] = 1000
    warmup_factor: Fraction = 0.001
    steps: tuple[Count, ...] = ()
    step_factor: Positive = 0.1
    gradient_clip: Positive | None = None
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        rate = self.learning_rate * self.step_factor ** sum(iteration >= step for step in self.steps)
        if iteration < self.warmup:
            done = iteration / self.warmup
            rate *= self.warmup_factor * (1 - done) + done
        return rate


class AugmentConfig(_Strict):
    """How a training image is changed.

    Attributes:
        short_sides: with ``range`` the smallest and largest short side in pixels, with ``choice`` the
            possible ones.
        sampling: how a short side is drawn.
        long_side: images are made smaller where their long side would exceed this.
        flip: probability of a left-right flip.
        strong: also change colours, blur and erase rectangles, as the published training does with photos
            the parser labelled.
    """

    short_sides: tuple[Count, ...] = (640, 800)
    sampling: Literal["range", "choice"] = "range"
    long_side: Count = 1333
    flip: Fraction = 0.5
    strong: bool = False

    @model_validator(mode="after")
    def _sides(self) -> AugmentConfig:
        if not self.short_sides or (
            self.sampling == "range"
            and (len(self.short_sides) != 2 or self.short_sides[0] > self.short_sides[1])
        ):
            raise ValueError(
                "short_sides: two numbers, smaller first, for 'range'; at least one for 'choice'"
            )
        return self


class TrainConfig(_Strict):
    """Everything that decides the weights a training ends with, besides the data.

    Attributes:
        order: ``weighted`` draws images with replacement, datasets by their ratios, as the published joint
            trainings; ``epochs`` goes through every image of the one dataset in a new order each time.
        augment: for every source that has no own.
        amp: 16-bit type of the backbone and pyramid; the heads always run in float32.
        select: the weights that are the result: of the last iteration, or the best of the validations.
        log_every: iterations per line of ``metrics.jsonl``.
    """

    model: ModelConfig
    schedule: ScheduleConfig
    order: Literal["weighted", "epochs"] = "weighted"
    augment: AugmentConfig = AugmentConfig()
    amp: Literal["none", "bf16", "fp16"] = "none"
    seed: Annotated[int, Field(ge=0)] = 0
    log_every: Count = 20
    select: Literal["last", "best"] = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where and how carefully a training runs; none of it changes its result by more than rounding.

    The number of torch's threads is the caller's to set (``OMP_NUM_THREADS``): it decides the last bits.

    Attributes:
        device: ``cpu``, ``cuda``, ...; None takes cuda where there is one.
        workers: processes that read images; 0 reads them in this process.
        checkpoint_every: iterations between checkpoints.
        keep: how many checkpoints stay, besides the best weights so far.
        compile: translate backbone and pyramid with ``torch.compile``.
        recompute: keep fewer activations of the backbone and compute them again in the backward pass: less
            memory, more time.
    """

    device: str | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Count = 500
    keep: Count = 2
    compile: bool = False
    recompute: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSource:
    """One dataset of a training.

    Attributes:
        split: the images.
        categories: category_id -> name of every category that is used; others are left out.
        annotation: ``box`` = boxes and masks of objects and parts, ``image`` = labels of whole images,
            ``parsed_part`` = boxes written by the annotation parser.
        batch_size: images per batch.
        ratio: the share of images, relative to the other datasets' ratios.
        federated: grade a batch on its own classes and some others only (LVIS, PACO).
        keep_empty: also use images without any usable annotation, as background; not for ``image``.
        repeat_threshold: images with a class that fewer than this share of the images have are repeated
            (LVIS, arXiv:1908.03195, appendix B.2); 0 repeats none.
        augment: how its images are changed; None takes the training's.
        use_ignored: also learn from annotations marked to be ignored, as the published trainings do with the
            difficult objects of VOC.
    """

    split: Split
    categories: Mapping[int, str]
    annotation: AnnotationKind = "box"
    batch_size: int = 2
    ratio: float = 1.0
    federated: bool = False
    keep_empty: bool = False
    repeat_threshold: float = 0.0
    augment: AugmentConfig | None = None
    use_ignored: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The vocabulary of this dataset, by category id; a label is a position in it."""
        return tuple(self.categories[key] for key in sorted(self.categories))


def source(
    dataset: Dataset,
    split: str,
    *,
    names: frozenset[str] | None = None,
    annotation: AnnotationKind = "box",
    batch_size: int = 2,
    ratio: float = 1.0,
    federated: bool = False,
    keep_empty: bool = False,
    repeat_threshold: float = 0.0,
    augment: AugmentConfig | None = None,
    use_ignored: bool = False,
) -> TrainSource:
    """A dataset's split as a source of training images.

    Args:
        dataset: opened with its ``image_root``.
        split: name of the split.
        names: the categories to use; None means all.
        annotation: see :class:`TrainSource`, as are the rest.
        batch_size: images per batch.
        ratio: share of images.
        federated: grade on some classes only.
        keep_empty: keep images without annotations.
        repeat_threshold: share of images below which a class counts as rare.
        augment: of its own.
        use_ignored: use annotations marked to be ignored.

    Raises:
        TrainingError: the dataset does not have one of the categories.
        LayoutError: there is no such split.
    """
    categories = {c.category_id: c.name for c in dataset.categories if names is None or c.name in names}
    if names is not None and (missing := sorted(names - set(categories.values()))):
        raise TrainingError(f"no category {missing[0]!r} in the dataset", where=Path(dataset.folder))
    return TrainSource(
        split=dataset.split(split),
        categories=categories,
        annotation=annotation,
        batch_size=batch_size,
        ratio=ratio,
        federated=federated,
        keep_empty=keep_empty,
        repeat_threshold=repeat_threshold,
        augment=augment,
        use_ignored=use_ignored,
    )
