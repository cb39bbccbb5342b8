from __future__ import annotations

import pytest

from partseg.evaluation.label_quality import label_quality
from tests.evaluation.conftest import CATEGORIES, record


def test_parts_are_matched_by_name_and_overlap() -> None:
    truth = [
        record(1, [(2, (0, 0, 10, 10)), (2, (20, 0, 10, 10)), (4, (0, 20, 8, 8))]),
        record(2, [(3, (0, 0, 5, 5))]),
    ]
    # One head exactly, one at 2/3 overlap with a wrong neighbour's help denied, a tail nobody drew there.
    parsed = [record(1, [(2, (0, 0, 10, 10)), (2, (22, 0, 10, 10)), (3, (0, 20, 8, 8))])]
    quality = label_quality(parsed, CATEGORIES, truth, CATEGORIES)
    assert (quality.images, quality.parts, quality.true_parts) == (1, 3, 4)
    assert quality.mean_iou == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert quality.precision50 == pytest.approx(2 / 3)
    assert quality.recall50 == pytest.approx(2 / 4)


def test_one_true_part_confirms_only_one_pseudo_label() -> None:
    truth = [record(1, [(2, (0, 0, 10, 10))])]
    parsed = [record(1, [(2, (0, 0, 10, 10)), (2, (0, 0, 10, 9))])]
    assert label_quality(parsed, CATEGORIES, truth, CATEGORIES).mean_iou == pytest.approx(0.5)


def test_nothing_against_nothing() -> None:
    assert set(label_quality([], CATEGORIES, [], CATEGORIES).as_dict().values()) == {0}
