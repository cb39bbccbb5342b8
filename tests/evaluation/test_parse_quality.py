"""The numbers that decide whether a parse is trusted: cases by hand, and what must always hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from partseg.evaluation.parse_matching import KnownImage, TruePart
from partseg.evaluation.parse_quality import ParseQuality, parse_quality
from partseg.evaluation.parsed_parts import ParsedPart

SIZE = (40, 40)
Box = tuple[float, float, float, float]


def rle(box: Box) -> bytes:
    x, y, w, h = map(int, box)
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return bytes(coco_mask.encode(mask)["counts"])


def parsed(
    name: str,
    box: Box,
    *,
    image: int = 0,
    label: str = "dog",
    confidence: float = 0.9,
    path: str = "transfer",
) -> ParsedPart:
    return ParsedPart(
        image=image, name=name, label=label, path=path, box_xywh=box, rle=rle(box), confidence=confidence
    )


def true(name: str, box: Box, image: int = 0, **flags: bool) -> TruePart:
    return TruePart(image=image, name=name, box_xywh=box, rle=rle(box), **flags)


def known(truth: int = 0, image: int | None = 0, label: str = "dog") -> KnownImage:
    return KnownImage(image=image, truth=truth, label=label, size=SIZE)


def measured(parts: list[ParsedPart], truth: list[TruePart]) -> ParseQuality:
    return parse_quality([known()], parts, truth, {"dog:head": "novel"})


def test_right_again_misnamed_and_beside() -> None:
    quality = measured(
        [
            parsed("dog:head", (0, 0, 10, 10)),
            parsed("dog:head", (0, 0, 10, 8), confidence=0.5),  # the same head once more
            parsed("dog:tail", (20, 0, 10, 6)),  # on a leg
            parsed("dog:leg", (0, 20, 10, 10)),  # where there is nothing
        ],
        [true("dog:head", (0, 0, 10, 10)), true("dog:leg", (20, 0, 10, 10))],
    )
    tally = quality.overall
    assert (tally.parsed, tally.true, tally.right, tally.on_parts, tally.named_right) == (4, 2, 1, 3, 2)
    assert (tally.precision, tally.recall, tally.label_accuracy) == (1 / 4, 1 / 2, 2 / 3)
    assert quality.confused == (("dog:leg", "dog:tail", 1),)
    assert quality.groups["novel"].parsed == 2
    assert quality.parts["dog:leg"].recall == 0
    assert quality.parts["dog:tail"].recall is None


def test_the_surer_part_takes_the_true_one_and_the_overlap_of_masks_is_its_own() -> None:
    quality = measured(
        [parsed("dog:head", (0, 0, 10, 10), confidence=0.3), parsed("dog:head", (0, 0, 10, 8))],
        [true("dog:head", (0, 0, 10, 10))],
    )
    assert quality.overall.mask_iou == pytest.approx(0.8)
    everything, best = quality.cuts["all"][0], quality.cuts["all"][-1]
    assert (everything.kept, everything.precision, everything.recall) == (2, 0.5, 1)
    assert (best.kept, best.precision, best.recall) == (1, 1, 1)


def test_exactly_one_half_is_enough_and_a_part_without_a_mask_has_no_overlap_of_masks() -> None:
    half = replace(parsed("dog:head", (0, 0, 10, 5)), rle=None)
    tally = measured([half], [true("dog:head", (0, 0, 10, 10))]).overall
    assert (tally.right, tally.masks, tally.mask_iou) == (1, 0, None)
    assert (
        measured([parsed("dog:head", (0, 0, 10, 4.9))], [true("dog:head", (0, 0, 10, 10))]).overall.right == 0
    )


def test_what_the_parser_found_nothing_in_counts_as_missed_and_what_it_never_saw_does_not() -> None:
    truth = [true("dog:head", (0, 0, 9, 9), image) for image in range(3)]
    quality = parse_quality(
        [known(0, 0), known(1, None, label="dog")], [parsed("dog:head", (0, 0, 9, 9))], truth
    )
    assert (quality.overall.right, quality.overall.true) == (1, 2)
    assert quality.paths["transfer"].recall == 1 / 2  # other dogs were transferred to


def test_parts_of_other_objects_are_no_misses_but_boxes_on_them_are_misnamed() -> None:
    quality = measured(
        [parsed("dog:head", (0, 0, 10, 10))],
        [true("cat:head", (0, 0, 10, 10)), true("cat:tail", (20, 0, 5, 5))],
    )
    assert (quality.overall.true, quality.other_objects) == (0, 2)
    assert quality.confused == (("cat:head", "dog:head", 1),)


def test_ignored_parts_and_crowds_count_neither_way() -> None:
    one = parsed("dog:head", (0, 0, 10, 10))
    ignored = measured([one], [true("dog:head", (0, 0, 10, 10), is_ignore=True)])
    assert ignored.overall.as_dict() | {"parsed": 0, "true": 0} == ignored.overall.as_dict()
    crowd = [true("dog:head", (0, 0, 40, 40), is_crowd=True)]
    assert measured([one, parsed("dog:head", (20, 0, 10, 10))], crowd).overall.parsed == 0


def test_names_are_compared_without_regard_to_case() -> None:
    quality = parse_quality(
        [known(label="Quadruped")],
        [parsed("Quadruped:Head", (0, 0, 9, 9), label="Quadruped")],
        [true("quadruped:head", (0, 0, 9, 9))],
    )
    assert quality.overall.recall == 1


def test_nothing_against_nothing() -> None:
    quality = parse_quality([], [], [])
    assert quality.overall.precision is quality.overall.recall is None
    assert quality.as_dict()["thresholds"] == {"all": []}


NAMES = ("dog:head", "dog:leg", "dog:tail")
CELLS = [(x, y) for x in (0, 10, 20, 30) for y in (0, 10, 20, 30)]


@st.composite
def scenes(draw: st.DrawFn) -> list[tuple[str, Box, float]]:
    """Parts in cells of their own: name, box and confidence."""
    places = draw(st.lists(st.sampled_from(CELLS), unique=True, min_size=1, max_size=8))
    return [
        (
            draw(st.sampled_from(NAMES)),
            (x, y, draw(st.integers(3, 9)), draw(st.integers(3, 9))),
            draw(st.integers(1, 99)) / 100,
        )
        for x, y in places
    ]


@settings(max_examples=40, deadline=None)
@given(scenes(), st.randoms(use_true_random=False), st.data())
def test_a_perfect_parse_is_perfect_in_any_order_and_a_lost_box_only_lowers_recall(
    scene, random, data
) -> None:
    truth = [true(name, box) for name, box, _ in scene]
    parts = [parsed(name, box, confidence=confidence) for name, box, confidence in scene]
    quality = measured(parts, truth)
    overall = quality.overall
    assert overall.precision == overall.recall == overall.label_accuracy == 1
    assert overall.mask_iou == pytest.approx(1)
    random.shuffle(parts)
    random.shuffle(truth)
    assert measured(parts, truth).as_dict() == quality.as_dict()
    lost = data.draw(st.integers(0, len(parts) - 1))
    rest = measured([*parts[:lost], *parts[lost + 1 :]], truth).overall
    assert rest.right == overall.right - 1
    assert rest.recall == pytest.approx(1 - 1 / len(parts))
    assert rest.precision in (1, None)


@settings(max_examples=40, deadline=None)
@given(scenes(), scenes())
def test_counts_add_up_and_thresholds_only_ever_take_away(scene, other) -> None:
    quality = measured(
        [parsed(*row[:2], confidence=row[2]) for row in scene], [true(*row[:2]) for row in other]
    )
    tally = quality.overall
    assert tally.right <= tally.named_right <= tally.on_parts <= tally.parsed == len(scene)
    for name in ("parsed", "true", "right"):
        assert sum(getattr(part, name) for part in quality.parts.values()) == getattr(tally, name)
    cuts = quality.cuts["all"]
    assert (cuts[0].kept, cuts[0].recall) == (tally.parsed, tally.recall)
    assert all(a.kept > b.kept and a.recall >= b.recall for a, b in pairwise(cuts))
