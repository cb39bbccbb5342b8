from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from partseg.evaluation.overlaps import label_pixels, masks_to_map, overlaps
from partseg.evaluation.panoptic_image import PanopticImage, ThingOrStuff, panoptic_image
from partseg.evaluation.panoptic_quality import PanopticQuality, PanopticResult
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import label_map_to_runs
from tests.golden.panoptic import panoptic_case

CLASSES = (ThingOrStuff(1, "cat", True), ThingOrStuff(2, "dog", True), ThingOrStuff(3, "sky", False))
GOLDEN = panoptic_case()
SHORT = {"pq": "quality", "sq": "segmentation", "rq": "recognition"}


def check(result: PanopticResult, expected: dict[str, Any]) -> None:
    for group in ("All", "Things", "Stuff"):
        found = getattr(result, group.lower())
        assert found.n == expected[group]["n"]
        for short, name in SHORT.items():
            assert getattr(found, name) == pytest.approx(expected[group][short], abs=1e-9)
    assert len(result.classes) == len(expected["per_class"])
    for item in result.classes:
        for short in SHORT:
            # panopticapi says 0 of classes that do not occur
            value = getattr(item, short) or 0.0
            assert value == pytest.approx(expected["per_class"][str(item.category_id)][short], abs=1e-9)


def as_runs(image: PanopticImage) -> PanopticImage:
    return _with(image, label_map_to_runs(image.labels))


def as_colours(image: PanopticImage) -> PanopticImage:
    values = np.asarray(image.labels)
    return _with(
        image, np.stack([values % 256, values // 256 % 256, values // 65536], axis=2).astype(np.uint8)
    )


def _with(image: PanopticImage, labels: Any) -> PanopticImage:
    return panoptic_image(labels, image.ids, image.category_ids, is_crowd=image.is_crowd, areas=image.areas)


@pytest.mark.parametrize("form", [lambda image: image, as_runs, as_colours])
def test_the_numbers_are_panopticapis(form: Any) -> None:
    state = PanopticQuality(GOLDEN.categories)
    for image_id, truth in GOLDEN.true.items():
        state.add(image_id, as_runs(truth), form(GOLDEN.predicted[image_id]))
    check(state.result(), GOLDEN.expected)


def test_a_result_goes_through_json_and_names_its_metrics() -> None:
    result = golden_state(GOLDEN.true).result()
    assert PanopticResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result
    assert result.metrics()["panoptic/pq_things"] == GOLDEN.expected["Things"]["pq"]
    assert len(result.metrics()) == 9


def golden_state(image_ids: Iterable[int], categories: Any = GOLDEN.categories) -> PanopticQuality:
    state = PanopticQuality(categories)
    for image_id in image_ids:
        state.add(image_id, GOLDEN.true[image_id], GOLDEN.predicted[image_id])
    return state


@settings(deadline=None, max_examples=25)
@given(st.permutations(sorted(GOLDEN.true)), st.lists(st.integers(0, 5), max_size=3), st.randoms())
def test_order_ranks_and_categories_change_no_bit(order: list[int], cuts: list[int], random: Any) -> None:
    categories = list(GOLDEN.categories)
    random.shuffle(categories)
    parts = [golden_state(order[a:b], categories) for a, b in pairwise(sorted([0, len(order), *cuts]))]
    merged = PanopticQuality(categories)
    random.shuffle(parts)
    for part in parts:
        merged = merged.merge(part)
    whole, found = golden_state(GOLDEN.true).result(), merged.result()
    assert (found.all, found.things, found.stuff) == (whole.all, whole.things, whole.stuff)
    assert set(found.classes) == set(whole.classes)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[PanopticImage, PanopticImage]:
    """A truth with crowds and void, and a prediction that resembles it; areas are not stated."""
    count = 6
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    labels = random.integers(0, count, (height, width))
    if draw(st.booleans()):
        labels = np.sort(labels, axis=int(random.integers(0, 2)))
    ids = random.choice(2**24 - 1, count, replace=False) + 1
    ids[0] = 0
    categories = random.integers(1, 4, count)
    listed = np.flatnonzero(random.random(count) < 0.9)
    truth = panoptic_image(
        ids[labels],
        ids[listed[listed > 0]],
        categories[listed[listed > 0]],
        is_crowd=random.random((listed > 0).sum()) < 0.3,
    )
    other = np.where(random.random(labels.shape) < 0.2, random.integers(0, count, labels.shape), labels)
    own = np.unique(other[other > 0])
    renamed = np.where(random.random(count) < 0.8, categories, random.integers(1, 4, count))
    return truth, panoptic_image(ids[other], ids[own], renamed[own])


def by_masks(truth: PanopticImage, predicted: PanopticImage) -> dict[int, list[float]]:
    """PQ by its definition, with a mask for every segment: tp, fp, fn, IoU sum by category."""
    true_map, own_map = np.asarray(truth.labels), np.asarray(predicted.labels)
    void = ~np.isin(true_map, truth.ids)
    counts = {item.category_id: [0, 0, 0, 0.0] for item in CLASSES}
    found = set()
    for segment, category, crowd in zip(truth.ids, truth.category_ids, truth.is_crowd, strict=True):
        mask = true_map == segment
        if crowd or not mask.any():
            continue
        for own, own_category in zip(predicted.ids, predicted.category_ids, strict=True):
            other = (own_map == own) & ~void
            iou = (mask & other).sum() / max((mask | other).sum(), 1)
            if category == own_category and iou > 0.5:
                found.add(own)
                counts[category][0] += 1
                counts[category][3] += iou
                break
        else:
            counts[category][2] += 1
    for own, category in zip(predicted.ids, predicted.category_ids, strict=True):
        crowds = truth.ids[truth.is_crowd & (truth.category_ids == category)]
        ignored = (void | np.isin(true_map, crowds))[own_map == own]
        if own not in found and ignored.mean() <= 0.5:
            counts[category][1] += 1
    return counts


@settings(deadline=None, max_examples=200)
@given(scenes(), st.booleans())
def test_the_correct_protocol_is_the_definition(
    scene: tuple[PanopticImage, PanopticImage], runs: bool
) -> None:
    truth, predicted = scene
    state = PanopticQuality(CLASSES, "correct")
    state.add(1, truth, as_runs(predicted) if runs else predicted)
    for item in state.result().classes:
        tp, fp, fn, iou = by_masks(truth, predicted)[item.category_id]
        assert (item.tp, item.fp, item.fn) == (tp, fp, fn)
        if tp + fp + fn == 0:
            assert item.pq is None
        else:
            assert item.pq == pytest.approx(iou / (tp + fp / 2 + fn / 2), abs=1e-12)


def square(*values: int) -> np.ndarray:
    """Four rows of four pixels."""
    return np.repeat(np.array(values, np.int64), 4).reshape(4, 4)


def scored(truth: PanopticImage, predicted: PanopticImage, protocol: Any) -> tuple[int, int, int]:
    state = PanopticQuality(CLASSES, protocol)
    state.add(1, truth, predicted)
    cat = state.result().classes[0]
    return cat.tp, cat.fp, cat.fn


@pytest.mark.parametrize(("protocol", "expected"), [("panopticapi", (0, 1, 0)), ("correct", (0, 0, 0))])
def test_two_crowds_of_one_class(protocol: str, expected: tuple[int, int, int]) -> None:
    truth = panoptic_image(square(5, 5, 6, 6), [5, 6], [1, 1], is_crowd=[1, 1])
    predicted = panoptic_image(square(9, 9, 9, 9), [9], [1])
    # half in each: panopticapi sees only the last, and half is not enough
    assert scored(truth, predicted, protocol) == expected


@pytest.mark.parametrize(("protocol", "expected"), [("panopticapi", (0, 1, 1)), ("correct", (1, 0, 0))])
def test_areas_that_the_json_states_wrongly(protocol: str, expected: tuple[int, int, int]) -> None:
    truth = panoptic_image(square(5, 5, 0, 0), [5], [1], areas=[80])
    predicted = panoptic_image(square(9, 9, 0, 0), [9], [1])
    assert scored(truth, predicted, protocol) == expected


@pytest.mark.parametrize(("protocol", "expected"), [("panopticapi", (0, 1, 0)), ("correct", (0, 0, 0))])
def test_pixels_whose_true_segment_is_not_listed(protocol: str, expected: tuple[int, int, int]) -> None:
    truth = panoptic_image(square(5, 5, 5, 5), [], [])
    predicted = panoptic_image(square(9, 9, 9, 9), [9], [1])
    assert scored(truth, predicted, protocol) == expected


def test_nothing_predicted_and_nothing_true() -> None:
    truth = panoptic_image(square(5, 5, 6, 6), [5, 6], [1, 3])
    state = PanopticQuality(CLASSES)
    state.add("a", truth, panoptic_image(square(0, 0, 0, 0), [], []))
    result = state.result()
    cat, dog, sky = result.classes
    assert (cat.pq, cat.sq, cat.rq, cat.fn) == (0.0, 0.0, 0.0, 1)
    assert (dog.pq, dog.sq, dog.rq) == (None, None, None)
    assert result.all.n == 2
    assert result.things.quality == 0.0
    assert sky.fn == 1
    # panopticapi divides by zero here
    empty = PanopticQuality(CLASSES).result()
    assert empty.all.quality is None
    assert empty.metrics() == {}


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (panoptic_image(square(9, 9, 8, 8), [9], [1]), "segment 8 of the predicted map is not in"),
        (panoptic_image(square(9, 9, 9, 9), [9, 8], [1, 1]), "segment 8 of segments_info has no pixel"),
        (panoptic_image(square(9, 9, 9, 9), [9], [77]), "segment 9 has the unknown category 77"),
        (panoptic_image(np.zeros((4, 5), int), [], []), "has 5 x 4 pixels, the image 4 x 4"),
        (panoptic_image(np.zeros((4, 4)), [], []), "is no label map"),
    ],
)
def test_predictions_that_cannot_be_used(predicted: PanopticImage, message: str) -> None:
    truth = panoptic_image(square(5, 5, 6, 6), [5, 6], [1, 3])
    for protocol in ("panopticapi", "correct"):
        with pytest.raises(PredictionError, match=message) as error:
            PanopticQuality(CLASSES, protocol).add(7, truth, predicted, where="model.json, image 7")
        assert "model.json, image 7" in str(error.value)


def test_two_segments_with_one_id() -> None:
    truth = panoptic_image(square(5, 5, 6, 6), [5, 6], [1, 3])
    predicted = panoptic_image(square(9, 9, 0, 0), [9, 9], [2, 1])
    assert scored(truth, predicted, "panopticapi") == (1, 0, 0)  # the last one counts
    with pytest.raises(PredictionError, match="segment id 9 occurs twice"):
        scored(truth, predicted, "correct")


def test_an_image_counts_once() -> None:
    one = golden_state([0, 1])
    with pytest.raises(PredictionError, match="image 1 is evaluated twice"):
        one.add(1, GOLDEN.true[1], GOLDEN.predicted[1])
    with pytest.raises(PredictionError, match="image 1 is evaluated twice"):
        one.merge(golden_state([1, 2]))
    with pytest.raises(ValueError, match="different classes"):
        one.merge(PanopticQuality(GOLDEN.categories, "correct"))


def test_samples_of_the_images() -> None:
    state = golden_state(GOLDEN.true)
    sample = golden_state([0, 1, 2])
    for image_id in (0, 1):  # twice in the sample
        sample.add(image_id + 10, GOLDEN.true[image_id], GOLDEN.predicted[image_id])
    found = state.resampled([[1, 1, 1, 1, 1], [2, 2, 1, 0, 0]])
    for row, result in enumerate((state.result(), sample.result())):
        for name, value in result.metrics().items():
            assert found[name][row] == pytest.approx(value, abs=1e-12)
    empty = state.resampled([[0, 0, 0, 0, 0]])
    assert np.isnan(empty["panoptic/pq"]).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 7), st.integers(1, 3000))
def test_overlaps_are_counts_of_pairs(seed: int, height: int, width: int, most: int) -> None:
    random = np.random.default_rng(seed)
    one, two = random.integers(0, most, (2, height, width))
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(one.ravel().tolist(), two.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    forms = [(one, two), (label_map_to_runs(one), two), (one[::-1][::-1], label_map_to_runs(two))]
    for truth, predicted in forms:
        found = overlaps(truth, predicted)
        pairs = zip(found.truth.tolist(), found.predicted.tolist(), strict=True)
        assert dict(zip(pairs, found.pixels.tolist(), strict=True)) == expected
    labels, pixels = label_pixels(one)
    assert dict(zip(labels.tolist(), pixels.tolist(), strict=True)) == {
        int(value): int((one == value).sum()) for value in np.unique(one)
    }


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_masks_become_one_map_unless_they_overlap(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, (height, width))
    masks = [labels == value for value in (1, 2, 3)]
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]
    assert (masks_to_map(rles, labels.shape).to_map() == labels).all()
    with pytest.raises(PredictionError, match="original image's size"):
        masks_to_map(rles, (height + 1, width))
    if masks[1].any():
        with pytest.raises(PredictionError, match=r"masks 1 and 3 overlap"):
            masks_to_map([*rles, rles[1]], labels.shape)
