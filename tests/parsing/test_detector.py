"""What the parser asks of a detector, of one with one stage and of a cascade."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from partseg.models.config import CascadeStage, load_config
from partseg.models.vlpart import build_model
from partseg.parsing.config import ParserConfig
from partseg.parsing.detector import ModelDetector, enlarged, suppress

NAMES = ("cat:head", "cat:torso", "cat:leg")
CASCADE = tuple(CascadeStage(positive_iou=iou, box_weights=(20, 20, 10, 10)) for iou in (0.6, 0.7))


@pytest.fixture(scope="module", params=[(), CASCADE], ids=["one stage", "cascade"])
def detector(request: pytest.FixtureRequest) -> ModelDetector:
    torch.manual_seed(0)
    config = load_config(Path(__file__).parents[2] / "configs/models/tiny.yaml")
    roi = config.roi.model_copy(update={"cascade": request.param})
    return ModelDetector(
        build_model(config.model_copy(update={"roi": roi})).eval(), NAMES, torch.randn(3, 128)
    )


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


@pytest.mark.parametrize("sees", ["original", "descriptor"])
def test_boxes_are_in_pixels_of_the_image_however_large_the_detector_sees_it(
    detector: ModelDetector, sees: str
) -> None:
    config = ParserConfig(score_threshold=0.0, detector_sees=sees)  # type: ignore[arg-type]
    for image in images():
        size = torch.tensor([image.shape[2], image.shape[1]])
        for found in (detector.refine([image], config)[0], detector.find([image], config)[0]):
            # Random weights give large boxes: some nearly touch the far corner, none lies beyond it.
            reached = found.boxes[:, 2:].amax(dim=0) / size
            assert (reached > 0.8).all()
            assert (reached < 1.01).all()


def test_candidates_do_not_overlap_and_either_ranking_gives_some(detector: ModelDetector) -> None:
    for ranking in ("first_class", "objectness"):
        config = ParserConfig(candidates_ranked_by=ranking, max_detections=9)  # type: ignore[arg-type]
        boxes = detector.refine(images()[:1], config)[0].boxes
        assert 0 < len(boxes) <= 9
        assert boxes.shape[1] == 4


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 5, 5, 9]])
    kept = suppress(boxes, torch.tensor([0.2, 0.9, 0.5, 1.0]), ParserConfig(nms_iou=0.3))
    assert kept.tolist() == [1, 2]


@given(st.integers(3, 40), st.integers(3, 40), st.integers(8, 90), st.integers(0, 2**31))
def test_enlarging_is_bilinear_and_cuts_what_is_behind_the_point(
    height: int, width: int, side: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=draw, dtype=torch.uint8)
    found = enlarged(image, side)
    scale = side / min(height, width)
    assert found.shape[1:] == (int(height * scale), int(width * scale))
    exact = functional.interpolate(
        image[None].double(), size=found.shape[1:], mode="bilinear", align_corners=False
    )
    rest = exact[0] - found
    assert (rest > -1e-6).all()
    assert (rest < 1 + 1e-6).all()


def test_a_plain_picture_stays_plain_when_it_is_enlarged() -> None:
    """Where float32 gives 199.99998, cutting would make a darker pixel."""
    image = torch.full((3, 37, 53), 200, dtype=torch.uint8)
    assert enlarged(image, 800).unique().tolist() == [200]
