from __future__ import annotations

from pathlib import Path

import pytest
import torch

from partseg.models.config import load_config
from partseg.models.vlpart import build_model
from partseg.parsing.config import ParserConfig
from partseg.parsing.detector import ModelDetector

NAMES = ("cat:head", "cat:torso", "cat:leg")


@pytest.fixture(scope="module")
def detector() -> ModelDetector:
    torch.manual_seed(0)
    model = build_model(load_config(Path(__file__).parents[2] / "configs/models/tiny.yaml")).eval()
    return ModelDetector(model, NAMES, torch.randn(3, 128))


def images() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 255, (3, h, w), generator=draw, dtype=torch.uint8) for h, w in ((96, 128), (80, 64))
    ]


def test_detections_carry_names_masks_and_obey_the_parsers_thresholds(detector: ModelDetector) -> None:
    low = ParserConfig(score_threshold=0.0, max_detections=7)
    found = detector.find(images(), low)
    assert [len(f.names) for f in found] == [7, 7]
    for parts, image in zip(found, images(), strict=True):
        assert set(parts.names) <= set(NAMES)
        assert len(parts.rles) == len(parts.boxes) == len(parts.scores) == 7
        assert (parts.boxes[:, 2] <= image.shape[2]).all()
    highest = float(max(f.scores.max() for f in found))
    strict = detector.find(images(), ParserConfig(score_threshold=min(1.0, highest + 0.01)))
    assert [len(f.names) for f in strict] == [0, 0]


def test_an_image_is_seen_the_same_alone_and_in_company(detector: ModelDetector) -> None:
    config = ParserConfig(score_threshold=0.0)
    together = detector.find(images(), config)[1]
    alone = detector.find(images()[1:], config)[0]
    assert torch.equal(together.boxes, alone.boxes)
    together, alone = detector.refine(images(), config)[1], detector.refine(images()[1:], config)[0]
    assert torch.equal(together.boxes, alone.boxes)
    assert together.names == alone.names


def test_candidates_do_not_overlap_and_either_ranking_gives_some(detector: ModelDetector) -> None:
    for ranking in ("first_class", "objectness"):
        config = ParserConfig(candidates_ranked_by=ranking, max_detections=9)  # type: ignore[arg-type]
        boxes = detector.refine(images()[:1], config)[0].boxes
        assert 0 < len(boxes) <= 9
        assert boxes.shape[1] == 4
