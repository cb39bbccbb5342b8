from __future__ import annotations

from pathlib import Path

import pytest
import torch

from partseg.models.config import ModelConfig, load_config
from partseg.models.structures import Annotation, Batch, Target

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return load_config(ROOT / "configs/models/tiny.yaml")


def batch(annotation: Annotation = "box", *, dim: int = 128, classes: int = 3, masks: bool = True) -> Batch:
    """Two noisy images with a bright rectangle each."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for height, width, box in ((96, 128, (20, 30, 60, 80)), (128, 96, (10, 10, 50, 40))):
        image = torch.randint(0, 80, (3, height, width), generator=generator, dtype=torch.uint8)
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, box[1] : box[3], box[0] : box[2]] = 1
        images.append(torch.where(mask.bool(), torch.tensor(200, dtype=torch.uint8), image))
        image_label = annotation == "image"
        boxes = torch.zeros(0, 4) if image_label else torch.tensor([box], dtype=torch.float32)
        targets.append(Target(boxes=boxes, labels=torch.tensor([1]), masks=mask if masks else None))
    text = torch.randn(classes, dim, generator=generator)
    return Batch(images=images, targets=targets, annotation=annotation, text=text)
