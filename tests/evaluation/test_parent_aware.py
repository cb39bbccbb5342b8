from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from partseg.errors import PartsegError
from partseg.evaluation.coco import evaluate
from partseg.evaluation.instance_run import run
from partseg.evaluation.parent_aware import ParentAwareAP, evaluate_parent_aware
from partseg.evaluation.predictions import Predictions, make
from partseg.layout import Category
from tests.evaluation.conftest import record, rectangle

CATEGORIES = (
    Category(category_id=1, name="dog", kind="object"),
    Category(category_id=2, name="dog:head", kind="part", parent_id=1, group="novel"),
    Category(category_id=3, name="cat", kind="object"),
)
LEFT, RIGHT = (0, 0, 16, 20), (20, 0, 16, 20)
LEFT_HEAD, RIGHT_HEAD = (2, 2, 8, 8), (22, 2, 8, 8)


def two_dogs(image_id: int = 1) -> SimpleNamespace:
    rows = [(1, LEFT), (2, LEFT_HEAD), (1, RIGHT), (2, RIGHT_HEAD)]
    return SimpleNamespace(**vars(record(image_id, rows)), parent_rows=np.array([-1, 0, -1, 2]))


def table(*rows: tuple[int, float, tuple[int, ...]], image_id: int = 1) -> Predictions:
    boxes = [row[2] for row in rows]
    return make(
        image_id, [row[0] for row in rows], [row[1] for row in rows], boxes, [rectangle(*b) for b in boxes]
    )


def ap(found: Predictions, **options: Any) -> float | None:
    return evaluate_parent_aware([two_dogs()], CATEGORIES, found, **options).stats["AP50"]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_parts_on_the_right_objects_count_as_ever(kind: str) -> None:
    found = table((1, 0.9, LEFT), (1, 0.8, RIGHT), (2, 0.9, LEFT_HEAD), (2, 0.8, RIGHT_HEAD))
    assert ap(found, iou_type=kind) == pytest.approx(1.0)
    assert evaluate([two_dogs()], CATEGORIES, found, iou_type=kind).stats["AP50"] == pytest.approx(1.0)


def test_a_part_without_its_object_is_a_mistake() -> None:
    found = table((1, 0.9, LEFT), (2, 0.9, LEFT_HEAD), (2, 0.8, RIGHT_HEAD))
    assert evaluate([two_dogs()], CATEGORIES, found).stats["AP50"] == pytest.approx(1.0)
    assert ap(found) == pytest.approx(51 / 101)  # one of two, up to recall one half


def test_a_part_on_an_object_of_another_class_is_a_mistake() -> None:
    found = table((1, 0.9, LEFT), (3, 0.8, RIGHT), (2, 0.9, LEFT_HEAD), (2, 0.8, RIGHT_HEAD))
    assert ap(found) == pytest.approx(51 / 101)


def test_a_part_whose_object_is_found_elsewhere_is_a_mistake() -> None:
    # the second dog's box covers both heads more than the right one, but it is no dog of the truth
    everything = (0, 0, 40, 40)
    found = table((1, 0.9, everything), (2, 0.9, LEFT_HEAD), (2, 0.8, RIGHT_HEAD))
    assert ap(found) == pytest.approx(0.0)


def test_of_two_objects_that_contain_a_part_the_better_one_has_it() -> None:
    inside = (0, 0, 12, 12)  # contains the head as well, but is no match
    good = table((1, 0.9, LEFT), (1, 0.1, inside), (2, 0.9, LEFT_HEAD))
    bad = table((1, 0.1, LEFT), (1, 0.9, inside), (2, 0.9, LEFT_HEAD))
    assert ap(good) == pytest.approx(51 / 101)
    assert ap(bad) == pytest.approx(0.0)


def test_true_parts_without_an_object_are_for_anyone() -> None:
    lonely = SimpleNamespace(**vars(record(1, [(2, LEFT_HEAD)])), parent_rows=np.array([-1]))
    found = evaluate_parent_aware([lonely], CATEGORIES, table((2, 0.9, LEFT_HEAD)))
    assert found.stats["AP"] == pytest.approx(1.0)
    assert found.family == "parent_aware"


def test_shares_and_order_change_nothing() -> None:
    found = [
        table((2, 0.9, LEFT_HEAD), (1, 0.9, LEFT), image_id=1),
        table((1, 0.8, RIGHT), (2, 0.8, RIGHT_HEAD), (2, 0.7, LEFT_HEAD), image_id=2),
    ]
    images = [two_dogs(1), two_dogs(2)]
    both = make(
        np.concatenate([t.image_ids for t in found]),
        np.concatenate([t.category_ids for t in found]),
        np.concatenate([t.scores for t in found]),
        np.concatenate([t.boxes_xywh for t in found]),
        [rle for t in found for rle in t.rles],
    )
    whole = run(ParentAwareAP(CATEGORIES), images, both).result()
    parts = [run(ParentAwareAP(CATEGORIES), [i], t) for i, t in zip(images, found, strict=True)]
    assert parts[1].merge(parts[0]).result() == whole
    assert run(ParentAwareAP(CATEGORIES), images[::-1], both[::-1]).result() == whole


def test_without_parts_there_is_nothing_to_ask() -> None:
    with pytest.raises(PartsegError, match="no part"):
        ParentAwareAP(CATEGORIES[::2])
