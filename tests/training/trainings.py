"""A training of seconds: a model of 60 kB on rectangles of 64 pixels, all three kinds of annotation."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from partseg.layout import Dataset
from partseg.models.config import ModelConfig
from partseg.training.config import AugmentConfig, ScheduleConfig, TrainConfig, source

MODEL = ModelConfig.model_validate(
    {
        "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": 0},
        "pyramid_channels": 16,
        "text_dim": 32,
        "rpn": {
            "anchor_sizes": [12, 24, 48, 96, 128],
            "samples_per_image": 32,
            "candidates_per_level_train": 50,
            "proposals_train": 40,
        },
        "roi": {
            "samples_per_image": 16,
            "box_pool": 4,
            "box_channels": 32,
            "mask_pool": 4,
            "mask_convs": 1,
            "mask_channels": 16,
        },
        "inference": {"short_side": 64, "long_side": 96},
    }
)


def config(iterations: int = 8, **schedule: Any) -> TrainConfig:
    return TrainConfig(
        model=MODEL,
        schedule=ScheduleConfig(
            iterations=iterations, learning_rate=1e-3, warmup=3, gradient_clip=5.0, **schedule
        ),
        augment=AugmentConfig(short_sides=(56, 64), long_side=96),
        log_every=3,
    )


def sources(boxes: Dataset) -> list[Any]:
    return [
        source(boxes, "train", batch_size=2, ratio=2, federated=True),
        source(boxes, "train", batch_size=1, annotation="image"),
        source(boxes, "train", batch_size=2, annotation="parsed_part", names=frozenset({"box:top"})),
    ]


class StopAt:
    """Asks the process to end while an iteration is reported."""

    def __init__(self, iteration: int, number: int = signal.SIGTERM) -> None:
        self.iteration, self.number = iteration, number

    def update(self, done: int, total: int, message: str = "") -> None:
        if done == self.iteration:
            os.kill(os.getpid(), self.number)

    def log(self, message: str) -> None:
        pass


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
