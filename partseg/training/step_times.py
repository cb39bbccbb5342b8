"""How long a training step takes, and where the time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from partseg.models.config import ModelConfig
from partseg.models.structures import Batch, Target
from partseg.models.vlpart import build_model
from partseg.training.config import Runtime, ScheduleConfig
from partseg.training.iteration import prepare_model
from partseg.training.metrics import peak_memory
from partseg.training.optimiser import AMP, Optimiser

T = TypeVar("T")

OBJECTS, CLASSES = 12, 93
"""Boxes per image as in Pascal-Part, and its part categories."""

WARM_UP = 3
"""Steps that are not measured: memory is found, kernels are chosen or compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Median seconds of the sections of a step of one batch.

    Attributes:
        data: bringing a batch that lies in memory to the device. Reading images is not in it.
        forward: from pixels to losses.
        backward: to gradients.
        optimiser: to new weights.
        images: per step.
        peak_memory: bytes, the most a GPU's tensors took, or this process did in all its life so far.
    """

    data: float
    forward: float
    backward: float
    optimiser: float
    images: int
    peak_memory: int

    @property
    def step(self) -> float:
        """Seconds of a whole step."""
        return self.data + self.forward + self.backward + self.optimiser

    @property
    def images_per_second(self) -> float:
        """How many images are learnt from in a second, where data is always at hand."""
        return self.images / self.step


def measure_steps(
    config: ModelConfig,
    *,
    images: int,
    side: int,
    steps: int = 10,
    amp: Literal["none", "bf16", "fp16"] = "none",
    compile: bool = False,
    recompute: bool = False,
    device: str | None = None,
) -> StepTimes:
    """Train a few steps on random images with random boxes and masks: only the model is measured.

    Args:
        config: the model.
        images: per step.
        side: height and width of the images, pixels.
        steps: how many are measured.
        amp: 16-bit type of backbone and pyramid.
        compile: as :attr:`partseg.training.config.Runtime.compile`.
        recompute: as :attr:`partseg.training.config.Runtime.recompute`.
        device: cuda where there is one, by default.

    Raises:
        RecipeError: there is no such backbone, or it cannot compute its activations again.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(0)
        model = build_model(config).to(place).train()
        prepare_model(model, Runtime(compile=compile, recompute=recompute))
        optimiser = Optimiser(model, ScheduleConfig(iterations=WARM_UP + steps), scaled=amp == "fp16")
        batch = random_batch(config, images, side)
        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place)

        def step(iteration: int) -> tuple[float, float, float, float]:
            optimiser.clear()
            here, data = _timed(lambda: batch.to(place), place)
            loss, forward = _timed(
                lambda: torch.stack(list(model.losses(here, amp=AMP[amp]).values())).sum(), place
            )
            _, backward = _timed(lambda: optimiser.backward(loss), place)
            _, update = _timed(lambda: optimiser.update(iteration), place)
            return data, forward, backward, update

        rows = [step(iteration) for iteration in range(WARM_UP + steps)][WARM_UP:]
    data, forward, backward, update = (statistics.median(column) for column in zip(*rows, strict=True))
    return StepTimes(
        data=data,
        forward=forward,
        backward=backward,
        optimiser=update,
        images=images,
        peak_memory=peak_memory(place),
    )


def random_batch(config: ModelConfig, images: int, side: int) -> Batch:
    """Images of noise with :data:`OBJECTS` random boxes each, filled by their masks; always the same."""
    generator = torch.Generator().manual_seed(1)
    targets = []
    for _ in range(images):
        low = torch.rand(OBJECTS, 2, generator=generator) * side * 0.7
        size = side * (0.05 + 0.25 * torch.rand(OBJECTS, 2, generator=generator))
        boxes = torch.cat([low, low + size], dim=1)
        masks = torch.zeros(OBJECTS, side, side, dtype=torch.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator)
        targets.append(Target(boxes=boxes, labels=labels, masks=masks))
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
    text = torch.randn(CLASSES, config.text_dim, generator=generator)
    return Batch(images=list(pixels), targets=targets, annotation="box", text=text)


def _timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start
