from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from partseg.layout import mask_to_rle
from partseg.models.config import load_config
from partseg.models.files import ModelCard, Vocabulary, save_model
from partseg.models.vlpart import build_model
from partseg.predict import NamedClass, Prediction, Predictor

ROOT = Path(__file__).parents[2]
NAMES = ("dog", "dog:head", "dog:paw", "cat")
# Random weights find something everywhere, but are not sure of it.
LOW = 0.3


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that says what it was trained with."""
    return write_model(tmp_path_factory.mktemp("model"), trained=True)


@pytest.fixture(scope="session")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.from_pretrained(model_folder, device="cpu", score=LOW)


def write_model(folder: Path, *, trained: bool, masks: bool = True) -> Path:
    torch.manual_seed(0)
    config = load_config(ROOT / "configs/models/tiny.yaml")
    config = config.model_copy(update={"roi": config.roi.model_copy(update={"masks": masks})})
    vocabulary = Vocabulary(names=NAMES, encoder="offline:128", template="a {name}") if trained else None
    save_model(folder, build_model(config), ModelCard(config=config, vocabulary=vocabulary))
    return folder


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (96, 72)) -> Path:
    """A picture of coloured noise, width × height."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size).save(path)
    return path


def prediction(found: list[tuple[str, tuple[int, int, int, int], int]], size: int = 60) -> Prediction:
    """Rectangles (name, xyxy, row of the object or -1) as detections, scores falling from 0.9."""
    classes = tuple(NamedClass(category_id=i, name=name) for i, name in enumerate(NAMES, start=1))
    rles = []
    for _, (x0, y0, x1, y1), _ in found:
        mask = np.zeros((size, size), bool)
        mask[y0:y1, x0:x1] = True
        rles.append(mask_to_rle(mask))
    return Prediction(
        pixels=np.full((size, size, 3), 128, np.uint8),
        boxes=np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.6, len(found), dtype=np.float32),
        labels=np.array([NAMES.index(name) for name, _, _ in found], np.int64),
        rles=tuple(rles),
        part_of=np.array([owner for _, _, owner in found], np.int64),
        classes=classes,
    )
