from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.datasets.convert import convert
from partseg.evaluation.assess import Assessed, assess
from partseg.evaluation.average_precision import accumulate
from partseg.evaluation.bootstrap import differences, intervals, require_same_images, samples_of
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.detection_records import DETECTION, TRUTH, DetectionRecords, DetectionTable
from partseg.evaluation.predictions import (
    PredictionError,
    Predictions,
    concatenate,
    make,
    write_predictions,
)
from partseg.evaluation.protocols import instance_state, named
from partseg.evaluation.resampling import draw_samples, sampled_average_precision
from partseg.layout import Dataset
from partseg.synthetic.worlds import make_up
from tests.evaluation.scenes import guesses, make_dataset

IDS = (1, 2, 3)


def table(seed: int, images: int = 9, truths: int = 40, others: int = 60) -> DetectionTable:
    """Records as a matching leaves them: each true one is found at most once, at falling thresholds."""
    random = np.random.default_rng(seed)
    true, found = np.zeros(truths, TRUTH), np.zeros(truths + others, DETECTION)
    true["image_id"], true["category_id"] = random.integers(0, images, truths), random.integers(1, 3, truths)
    true["ann_id"], true["ignored"] = np.arange(truths), random.random(truths) < 0.1
    found["image_id"] = np.append(true["image_id"], random.integers(0, images, others))
    found["category_id"] = np.append(true["category_id"], random.integers(1, 4, others))
    found["score"] = np.round(random.random(len(found)), 2)
    reached = random.integers(0, 11, truths)
    found["matched"][:truths] = (np.uint64(1) << reached.astype(np.uint64)) - np.uint64(1)
    found["ignored"][:truths] = np.where(true["ignored"] != 0, found["matched"][:truths], 0)
    found["ignored"][truths:] = np.where(random.random(others) < 0.1, 1023, 0)
    records = DetectionRecords(10, 1)
    records.add(np.arange(images), found, true)
    return records.sorted()


def drawn(rows: DetectionTable, sample: Any) -> DetectionTable:
    """The records of a sample: those of an image as often as it is drawn."""
    found, true = rows.detections, rows.truths
    return replace(
        rows,
        detections=np.repeat(found, sample[found["image_id"]]),
        truths=np.repeat(true, sample[true["image_id"]]),
    )


@given(st.integers(0, 10_000))
def test_samples_have_the_numbers_of_the_ordinary_way(seed: int) -> None:
    rows, weights = table(seed), draw_samples(9, 4, seed)
    found = sampled_average_precision(rows, IDS, weights)
    for column, sample in enumerate(weights):
        expected = accumulate(drawn(rows, sample), IDS, ranges=(0,)).precision[..., 0].mean(axis=1)
        np.testing.assert_allclose(found[:, :, column], expected, rtol=0, atol=1e-12)


def test_samples_do_not_depend_on_each_other() -> None:
    rows, weights = table(1), draw_samples(9, 30)
    together = sampled_average_precision(rows, IDS, weights)
    for place in range(30):
        alone = sampled_average_precision(rows, IDS, weights[place : place + 1])
        np.testing.assert_allclose(together[..., place : place + 1], alone, rtol=0, atol=1e-12)


def test_chosen_thresholds_are_those_of_all() -> None:
    rows, weights = table(2), draw_samples(9, 5)
    some = sampled_average_precision(rows, IDS, weights, thresholds=(0, 5))
    assert np.array_equal(some, sampled_average_precision(rows, IDS, weights)[[0, 5]], equal_nan=True)


def test_an_image_that_is_drawn_twice_is_there_twice(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    found, records = guesses(dataset, 0, 2.0), list(dataset.split("val"))
    state = CocoAP(dataset.categories)
    state.add(records, found)
    weights = np.array([2, 0, 1, 1, 0, 3, 1, 0])
    copies, rows = [], []
    for record, times in zip(records, weights.tolist(), strict=True):
        own = found.of_image(record.image_id)
        for copy in range(times):
            new = 1000 * (copy + 1) + record.image_id
            copies.append(_renamed(record, new))
            rows.append(_moved(own, new))
    repeated = CocoAP(dataset.categories)
    for record, own in zip(copies, rows, strict=True):
        repeated.add([record], own)
    values = sampled_average_precision(state.table(), state.settings.category_ids, weights[None])[..., 0]
    expected = np.array([row.ap for row in repeated.result().classes], np.float64)
    np.testing.assert_allclose(values.mean(axis=0), expected, atol=1e-12)


def _renamed(record: Any, image_id: int) -> Any:
    return replace(record, image_id=image_id, ann_ids=record.ann_ids + 100 * image_id)


def _moved(found: Predictions, image_id: int) -> Predictions:
    return replace(found, image_ids=np.full(len(found), image_id))


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("pets"), 10)


def evaluated(dataset: Dataset, folder: Path, seed: int, noise: float, **options: Any) -> list[Assessed]:
    path = folder / f"{seed}.parquet"
    write_predictions(path, guesses(dataset, seed, noise))
    return assess(dataset, "val", path, **options)


@pytest.mark.parametrize("name", ["coco", "voc2007", "voc2012", "pascal_part", "vlpart", "parent_aware"])
def test_the_sample_of_every_image_once_is_the_result(name: str, pets: Dataset, tmp_path: Path) -> None:
    (item,) = evaluated(pets, tmp_path, 1, 1.5, protocols=[name], iou_types=["bbox"])
    samples = item.resampled(np.ones((1, len(item.image_ids)), np.int64))
    metrics = item.metrics()
    assert {"bbox/AP", "bbox/AP50"} <= samples.metrics.keys()
    for metric in samples.metrics.keys() & metrics.keys():
        assert samples.metrics[metric][0] == pytest.approx(metrics[metric], abs=1e-12), metric
    for row in item.result.classes:
        assert samples.classes[row.category_id][0] == pytest.approx(row.ap, abs=1e-12)


def test_intervals_hold_the_number_and_are_the_same_every_time(pets: Dataset, tmp_path: Path) -> None:
    (item,) = evaluated(pets, tmp_path, 1, 1.5, iou_types=["segm"])
    first = intervals(item.metrics(), samples_of(item, 300).metrics)
    assert first == intervals(item.metrics(), samples_of(item, 300).metrics)
    found = first["segm/AP"]
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(4 * found.deviation, rel=0.3)
    others = intervals(item.metrics(), samples_of(item, 300, seed=1).metrics)["segm/AP"]
    assert others.low != found.low


def test_more_images_are_surer(tmp_path: Path) -> None:
    widths = []
    for images in (8, 72):
        dataset = make_dataset(tmp_path / str(images), images)
        (item,) = evaluated(dataset, tmp_path, 3, 1.5, iou_types=["bbox"])
        found = intervals(item.metrics(), samples_of(item, 200).metrics)["bbox/AP"]
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2  # a third is expected


def test_a_model_is_not_better_than_itself(pets: Dataset, tmp_path: Path) -> None:
    (item,) = evaluated(pets, tmp_path, 1, 1.5, iou_types=["bbox"])
    drawn = samples_of(item, 100).metrics
    found = differences(item.metrics(), item.metrics(), drawn, drawn)["bbox/AP"]
    assert (found.value, found.low, found.high, found.better, found.p) == (0, 0, 0, 0.5, 1)
    assert not found.is_real


def test_a_much_better_model_is_really_better(pets: Dataset, tmp_path: Path) -> None:
    (bad,) = evaluated(pets, tmp_path, 1, 3.0, iou_types=["bbox"])
    (good,) = evaluated(pets, tmp_path, 2, 0.3, iou_types=["bbox"])
    samples = [samples_of(item, 200).metrics for item in (bad, good)]
    found = differences(bad.metrics(), good.metrics(), *samples)["bbox/AP"]
    assert found.value == pytest.approx(good.metrics()["bbox/AP"] - bad.metrics()["bbox/AP"])
    assert found.is_real
    assert 0 < found.low < found.value < found.high
    assert found.p == pytest.approx(2 / 201)
    back = differences(good.metrics(), bad.metrics(), *reversed(samples))["bbox/AP"]
    assert (back.value, back.p) == (-found.value, found.p)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_a_small_difference_is_not_real(pets: Dataset, tmp_path: Path) -> None:
    """Two models that are equally good on average, on ten images."""
    real = 0
    for seed in range(10, 20, 2):
        pair = [evaluated(pets, tmp_path, seed + k, 1.5, iou_types=["bbox"])[0] for k in (0, 1)]
        samples = [samples_of(item, 200).metrics for item in pair]
        real += differences(pair[0].metrics(), pair[1].metrics(), *samples)["bbox/AP"].is_real
    assert real <= 2


def test_other_evaluations_are_not_compared(pets: Dataset, tmp_path: Path) -> None:
    boxes = evaluated(pets, tmp_path, 1, 1.5, iou_types=["bbox"])
    with pytest.raises(PredictionError, match="differently: bbox and segm"):
        require_same_images(boxes, evaluated(pets, tmp_path, 1, 1.5, iou_types=["segm"]))
    state = instance_state(named("coco", "table", pets), pets, "val", iou_type="bbox")
    state.add([pets.split("val")[0]], guesses(pets, 1, 1.5).of_image(pets.split("val")[0].image_id))
    one = Assessed(name="bbox", prefix="", protocol=boxes[0].protocol, state=state)
    with pytest.raises(PredictionError, match="other images"):
        require_same_images(boxes, [one])


def test_no_images_are_no_samples() -> None:
    assert draw_samples(0, 3).shape == (3, 0)
    weights = draw_samples(50, 7)
    assert (weights.sum(axis=1) == 50).all()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("lvis_v1", {"bbox/AP", "bbox/APf"}),
        ("paco_lvis_v1", {"bbox/AP", "bbox/obj-AP", "bbox/obj-part-AP", "bbox/obj-part-AP50"}),
    ],
)
def test_federated_numbers_are_sampled_too(source: str, names: set[str], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    make_up(source, raw, {"train": 1, "val": 4, "size": 64})
    convert(source, raw, tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data", cache=tmp_path / "cache")
    tables = []
    for record in dataset.split("val"):
        count = len(record.ann_ids)
        scores, boxes = (
            np.linspace(0.2, 1, count),
            record.boxes_xywh[np.arange(count) // 3 * 3],
        )  # few are right
        tables.append(make(record.image_id, record.category_ids, scores, boxes))
    write_predictions(tmp_path / "p.parquet", concatenate(tables))
    (item,) = assess(dataset, "val", tmp_path / "p.parquet", iou_types=["bbox"])
    samples = item.resampled(np.ones((1, len(item.image_ids)), np.int64)).metrics
    metrics = item.metrics()
    assert 0 < metrics["bbox/AP"] < 1
    assert names <= samples.keys() & metrics.keys()
    for name in samples.keys() & metrics.keys():
        assert samples[name][0] == pytest.approx(metrics[name], abs=1e-12), name
