from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partseg.evaluation.coco import CocoAP
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.errors_by_kind import KINDS, Errors, errors_by_kind
from partseg.evaluation.part_confusion import confusion_of_parts
from partseg.evaluation.predictions import make
from partseg.evaluation.size_bins import SIDES, size_bins
from tests.evaluation.conftest import CATEGORIES, record, rectangle

Box = tuple[int, int, int, int]
DOG_HEAD, CAT_HEAD, CAT_TAIL = 2, 3, 4
SQUARE: Box = (10, 10, 10, 10)
NAMED = {item.category_id: item for item in CATEGORIES}


def state(truth: list[tuple[int, Box]], found: list[tuple[int, float, Box]], **flags: Any) -> CocoAP:
    matches = CocoAP(CATEGORIES, details=True)
    predictions = make(
        1,
        [row[0] for row in found],
        [row[1] for row in found],
        [row[2] for row in found],
        [rectangle(*row[2]) for row in found],
    )
    matches.add([record(1, truth, **flags)], predictions)
    return matches


def table(truth: list[tuple[int, Box]], found: list[tuple[int, float, Box]], **flags: Any) -> DetectionTable:
    return state(truth, found, **flags).table()


def errors(truth: list[tuple[int, Box]], found: list[tuple[int, float, Box]], **flags: Any) -> Errors:
    return errors_by_kind(table(truth, found, **flags), (2, 3, 4))


def counts(found: Errors) -> dict[str, int]:
    return {name: found.kinds[name].count for name in KINDS if found.kinds[name].count}


TRUTH = [(DOG_HEAD, SQUARE)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(DOG_HEAD, 0.9, SQUARE)], {}),
        ([(CAT_HEAD, 0.9, SQUARE)], {"classification": 1}),
        ([(DOG_HEAD, 0.9, (16, 10, 10, 10))], {"localisation": 1}),  # 40 of 160
        ([(CAT_HEAD, 0.9, (16, 10, 10, 10))], {"both": 1, "missed": 1}),
        ([(DOG_HEAD, 0.9, SQUARE), (DOG_HEAD, 0.8, (11, 10, 10, 10))], {"duplicate": 1}),
        ([(DOG_HEAD, 0.9, (19, 19, 10, 10))], {"background": 1, "missed": 1}),  # 1 of 199
        ([(DOG_HEAD, 0.9, (28, 28, 10, 10))], {"background": 1, "missed": 1}),
        ([], {"missed": 1}),
    ],
)
def test_every_error_has_its_kind(found: Any, expected: dict[str, int]) -> None:
    assert counts(errors(TRUTH, found)) == expected


def test_a_repaired_kind_finds_what_it_points_at() -> None:
    result = errors(
        [(DOG_HEAD, SQUARE), (CAT_TAIL, (25, 25, 10, 10))],
        [(DOG_HEAD, 0.9, (16, 10, 10, 10)), (CAT_HEAD, 0.8, (25, 25, 10, 10))],
    )
    assert result.ap50 == 0
    assert counts(result) == {"localisation": 1, "classification": 1}
    # each repairs one of two classes; a head of a cat is no class with truth
    assert result.kinds["localisation"].cost == pytest.approx(0.5)
    assert result.kinds["classification"].cost == pytest.approx(0.5)
    assert result.kinds["false_negatives"].count == 2
    assert result.kinds["false_positives"].cost == 0


def test_of_two_errors_at_one_true_one_a_single_one_is_repaired() -> None:
    moved = [(DOG_HEAD, 0.9, (16, 10, 10, 10)), (DOG_HEAD, 0.8, (10, 16, 10, 10))]
    result = errors(TRUTH, moved)
    assert result.kinds["localisation"].count == 2
    assert result.kinds["localisation"].cost == pytest.approx(1.0)


def test_an_error_at_what_was_found_is_only_removed() -> None:
    found = [(CAT_HEAD, 0.9, SQUARE), (DOG_HEAD, 0.8, SQUARE), (CAT_HEAD, 0.7, (30, 30, 6, 6))]
    result = errors([*TRUTH, (CAT_HEAD, (30, 30, 6, 6))], found)
    assert counts(result) == {"classification": 1}
    assert result.ap50 == pytest.approx(0.75)  # the wrong head of a cat comes before the right one
    assert result.kinds["classification"].cost == pytest.approx(0.25)
    assert result.kinds["false_positives"].cost == pytest.approx(0.25)


def test_what_does_not_count_is_no_error() -> None:
    assert counts(errors(TRUTH, [(DOG_HEAD, 0.9, SQUARE)], is_ignore=[True])) == {}
    assert errors([], []).ap50 is None
    assert errors([], []).kinds["background"].cost is None


def test_errors_are_counted_by_the_class_they_name() -> None:
    result = errors(TRUTH, [(CAT_HEAD, 0.9, SQUARE), (CAT_TAIL, 0.5, (30, 2, 4, 4))])
    assert set(result.classes) == {CAT_HEAD, CAT_TAIL}
    assert result.classes[CAT_HEAD]["classification"] == 1
    assert result.classes[CAT_TAIL]["background"] == 1
    assert result.as_dict()["classes"]["4"]["background"] == 1


def test_records_without_details_are_refused() -> None:
    plain = CocoAP(CATEGORIES)
    plain.add([record(1, TRUTH)], make(1, [DOG_HEAD], [0.9], [SQUARE], [rectangle(*SQUARE)]))
    with pytest.raises(ValueError, match="details"):
        errors_by_kind(plain.table(), (2, 3, 4))
    with pytest.raises(ValueError, match="details"):
        confusion_of_parts(plain.table(), NAMED, (2, 3, 4))


def test_confusion_tells_what_a_part_is_taken_for() -> None:
    tail: Box = (25, 25, 8, 8)
    truth = [(CAT_HEAD, SQUARE), (CAT_TAIL, tail), (CAT_TAIL, (2, 30, 6, 6)), (CAT_HEAD, (30, 2, 6, 6))]
    found = [
        (CAT_TAIL, 0.9, SQUARE),  # a head that is taken for a tail
        (CAT_HEAD, 0.4, SQUARE),
        (CAT_TAIL, 0.8, tail),
        (DOG_HEAD, 0.7, (30, 2, 6, 6)),  # a part of another object
    ]
    (cat,) = confusion_of_parts(table(truth, found), NAMED, (2, 3, 4))
    assert (cat.name, cat.parts) == ("cat", ("head", "tail"))
    assert cat.counts == ((0, 1, 1, 0), (0, 1, 0, 1))
    assert cat.as_dict()["columns"] == ["head", "tail", "other", "nothing"]


def test_objects_with_one_part_have_nothing_to_confuse() -> None:
    assert confusion_of_parts(table(TRUTH, []), NAMED, (2, 3, 4)) == ()


def test_true_ones_are_found_by_size() -> None:
    truth = [(DOG_HEAD, (0, 0, 7, 7)), (DOG_HEAD, (10, 0, 8, 8)), (CAT_HEAD, (0, 20, 16, 16))]
    bins = size_bins(table(truth, [(DOG_HEAD, 0.9, (10, 0, 8, 8)), (CAT_HEAD, 0.9, (0, 20, 16, 11))]))
    assert [(item.low, item.ground_truth, item.found, item.found75) for item in bins[:3]] == [
        (0, 1, 0, 0),
        (8, 1, 1, 1),
        (16, 1, 1, 0),  # 11 of 16 rows
    ]
    assert [item.low for item in bins] == list(SIDES)
    assert np.sum([item.ground_truth for item in bins]) == 3
