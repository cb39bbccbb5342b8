from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.evaluation.mean_iou import MeanIoU, SemanticResult, resize_labels
from partseg.evaluation.predictions import PredictionError
from partseg.layout.runs import label_map_to_runs

CLASSES = {0: "road", 4: "car", 2: "sky", 7: "never"}
VALUES = np.array([0, 4, 2, 255])


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 9, 2)
    truth = VALUES[random.integers(0, 4, (height, width))]
    wrong = random.random(truth.shape) < 0.4
    return truth, np.where(wrong, VALUES[random.integers(0, 4, truth.shape)], truth)


def state_of(seeds: Any, classes: dict[int, str] = CLASSES) -> MeanIoU:
    state = MeanIoU(classes)
    for seed in seeds:
        state.add(seed, *pair(seed))
    return state


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**6), unique=True, max_size=5), st.booleans())
def test_the_measures_are_their_definitions(seeds: list[int], runs: bool) -> None:
    state = MeanIoU(CLASSES)
    for seed in seeds:
        truth, predicted = pair(seed)
        state.add(seed, label_map_to_runs(truth) if runs else truth.astype(np.uint8), predicted)
    result = state.result()
    true, own = (
        np.concatenate([np.zeros(0, int), *(pair(seed)[place].ravel() for seed in seeds)]) for place in (0, 1)
    )
    true, own = true[true != 255], own[true != 255]
    ious, accuracies, f1s = [], [], []
    for item in result.classes:
        one, two = true == item.value, own == item.value
        assert (item.true_pixels, item.predicted_pixels) == (one.sum(), two.sum())
        assert item.correct_pixels == (one & two).sum()
        if not (one | two).any():
            assert item.iou is None
            continue
        assert item.iou == pytest.approx((one & two).sum() / (one | two).sum())
        ious.append(item.iou)
        f1s.append(2 * (one & two).sum() / (one.sum() + two.sum()))
        if one.any():
            accuracies.append((one & two).sum() / one.sum())
    assert result.mean_iou == (pytest.approx(np.mean(ious)) if ious else None)
    assert result.mean_accuracy == (pytest.approx(np.mean(accuracies)) if accuracies else None)
    assert result.mean_f1 == (pytest.approx(np.mean(f1s)) if f1s else None)
    assert result.pixel_accuracy == (pytest.approx((true == own).mean()) if len(true) else None)
    assert sum(map(sum, result.confusion)) == len(true)
    assert SemanticResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)), st.lists(st.integers(0, 6), max_size=3), st.randoms())
def test_order_ranks_and_classes_change_no_bit(order: list[int], cuts: list[int], random: Any) -> None:
    merged = MeanIoU(CLASSES)
    for a, b in pairwise(sorted([0, 6, *cuts])):
        shuffled = list(CLASSES.items())
        random.shuffle(shuffled)
        merged = merged.merge(state_of(order[a:b], dict(shuffled)))
    whole = state_of(range(6))
    assert merged.result() == whole.result()
    assert (merged.table() == whole.table()).all()


def test_samples_of_the_images() -> None:
    state, sample = state_of(range(5)), state_of([0, 3])
    found = state.resampled([[1] * 5, [1, 0, 0, 1, 0], [0] * 5])
    for row, result in enumerate((state.result(), sample.result())):
        metrics = result.metrics()
        assert len(metrics) == 5
        for name, value in metrics.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12)
    assert all(np.isnan(values[2]) for values in found.values())


def test_an_ignored_prediction_is_a_miss() -> None:
    state = MeanIoU({0: "road", 1: "car"})
    state.add("a", np.array([[0, 0, 1, 255]]), np.array([[0, 255, 1, 0]]))
    result = state.result()
    assert [item.iou for item in result.classes] == [0.5, 1.0]
    assert result.pixel_accuracy == pytest.approx(2 / 3)
    assert result.confusion == ((1, 0, 1), (0, 1, 0))


def test_maps_that_cannot_be_used() -> None:
    state = MeanIoU({0: "road", 1: "car"})
    with pytest.raises(PredictionError, match="has 3 x 1 pixels, the image 2 x 1") as error:
        state.add(1, np.zeros((1, 2), int), np.zeros((1, 3), int), where="maps/a.png")
    assert str(error.value).startswith("maps/a.png")
    with pytest.raises(PredictionError, match="the prediction has pixels of value 9"):
        state.add(1, np.zeros((1, 2), int), np.full((1, 2), 9))
    with pytest.raises(PredictionError, match="the truth has pixels of value 9"):
        state.add(1, np.full((1, 2), 9), np.zeros((1, 2), int))
    state.add(1, np.zeros((1, 2), int), np.zeros((1, 2), int))
    for again in (lambda: state.merge(state), lambda: state.add(1, np.zeros((1, 1)), np.zeros((1, 1)))):
        with pytest.raises(PredictionError, match="evaluated twice"):
            again()
    with pytest.raises(ValueError, match="ignored value"):
        MeanIoU({255: "car"})


def test_nothing_at_all() -> None:
    result = MeanIoU({0: "road"}).result()
    assert (result.images, result.mean_iou, result.metrics()) == (0, None, {})


@settings(deadline=None, max_examples=100)
@given(st.tuples(*[st.integers(1, 60)] * 4), st.booleans())
def test_sithu_brings_the_truth_to_the_size_of_the_prediction(
    sizes: tuple[int, int, int, int], runs: bool
) -> None:
    old, new = sizes[:2], sizes[2:]
    truth = np.arange(old[0] * old[1]).reshape(old) % 3
    expected = torch.nn.functional.interpolate(torch.from_numpy(truth)[None, None].float(), new)[0, 0].numpy()
    labels = label_map_to_runs(truth) if runs else truth
    resized = resize_labels(labels, new)
    assert ((resized.to_map() if old == new and runs else resized) == expected).all()
    state = MeanIoU({0: "a", 1: "b", 2: "c"}, "sithu")
    state.add(1, labels, expected.astype(np.uint8))
    assert state.result().pixel_accuracy == 1.0
