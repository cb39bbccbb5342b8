from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partseg.parsing.config import ParserConfig
from partseg.parsing.confirming import Candidates, Confirmed, assign, confirm
from partseg.parsing.detector import suppress_alike

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])


def look(boxes: list[list[float]], names: list[str], scores: list[float], **options: object) -> Confirmed:
    candidates = Candidates(
        boxes=torch.tensor(boxes).reshape(-1, 4), names=names, scores=torch.tensor(scores)
    )
    return confirm(BOXES, ["cat:head", "cat:leg"], candidates, ParserConfig.model_validate(options))


def test_any_box_confirms_that_overlaps_more_than_the_smallest_overlap() -> None:
    boxes = [[0.0, 0, 10, 3], [0, 0, 10, 8]]
    found = look(boxes, ["cow:leg", "cow:tail"], [0.1, 0.1])
    assert found.matches.tolist() == [1, -1]
    torch.testing.assert_close(found.overlaps, torch.tensor([0.8, 0.0]))
    assert found.scores.tolist() == [1, 1]
    assert look(boxes, ["cow:leg", "cow:tail"], [0.1, 0.1], match_iou=0.8).matches.tolist() == [-1, -1]


def test_nothing_is_confirmed_where_the_detector_sees_nothing() -> None:
    for rule in ("box", "detection"):
        assert look([], [], [], confirmed_by=rule).matches.tolist() == [-1, -1]


def test_a_detection_confirms_a_part_of_its_own_kind_of_any_object() -> None:
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 8]]
    found = look(boxes, ["dog:leg", "dog:head"], [0.9, 0.6], confirmed_by="detection")
    assert found.matches.tolist() == [1, -1]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(found.overlaps, torch.tensor([0.8, 0.0]))


def test_one_detection_confirms_one_part() -> None:
    candidates = Candidates(
        boxes=torch.tensor([[0.0, 0, 10, 10]]), names=["dog:leg"], scores=torch.tensor([0.9])
    )
    lent = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10]])
    config = ParserConfig(confirmed_by="detection")
    assert confirm(lent, ["cat:leg", "cat:leg"], candidates, config).matches.tolist() == [-1, 0]


@given(
    overlaps=arrays(np.float64, (3, 3), elements=st.sampled_from([0, 0.2, 0.4, 0.7, 1])),
    scores=arrays(np.float64, 3, elements=st.sampled_from([0.3, 0.6, 0.9])),
)
def test_what_overlaps_and_is_sure_is_worth_most(overlaps: np.ndarray, scores: np.ndarray) -> None:
    matches = assign(torch.from_numpy(overlaps), torch.from_numpy(scores), 0.3).tolist()
    taken = [row for row in matches if row >= 0]
    assert len(taken) == len(set(taken))
    worth = np.where(overlaps > 0.3, overlaps * scores, 0)
    best = max(sum(worth[part, row] for part, row in enumerate(order)) for order in permutations(range(3)))
    assert sum(worth[part, row] for part, row in enumerate(matches) if row >= 0) == pytest.approx(best)


def test_detections_of_one_part_compete_whatever_object_they_are_of() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 30, 40, 40], [5, 5, 5, 9]])
    scores = torch.tensor([0.8, 0.9, 0.5, 0.2, 1.0])
    names = ["cat:leg", "dog:leg", "dog:tail", "dog:leg", "dog:leg"]
    kept = suppress_alike(boxes, scores, names, ParserConfig(nms_iou=0.3, confirming_score=0.3))
    assert kept.tolist() == [1, 2]
