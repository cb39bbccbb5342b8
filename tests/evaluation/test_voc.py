from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.evaluation.instance_run import run
from partseg.evaluation.predictions import Predictions, make
from partseg.evaluation.voc import VocAP, evaluate_voc, voc_average
from tests.evaluation.conftest import Kind

CATEGORIES = (Kind(1, "cat", "object"), Kind(2, "dog", "object"), Kind(3, "cat:tail", "part"))
THRESHOLDS = [t / 100 for t in range(50, 100, 5)]


def image(image_id: int, rows: list[tuple[int, tuple[float, ...], bool]]) -> SimpleNamespace:
    """Rows are class, box and whether it is difficult."""
    return SimpleNamespace(
        image_id=image_id,
        height=100,
        width=100,
        ann_ids=np.arange(len(rows)) + 10 * image_id,
        category_ids=np.array([row[0] for row in rows], np.int32),
        boxes_xywh=np.array([row[1] for row in rows], float).reshape(-1, 4),
        areas=np.array([row[1][2] * row[1][3] for row in rows], float),
        rles=[None] * len(rows),
        is_crowd=np.zeros(len(rows), bool),
        is_ignore=np.array([row[2] for row in rows], bool),
    )


def scene(seed: int) -> tuple[list[SimpleNamespace], Predictions]:
    rng = np.random.default_rng(seed)
    images, rows = [], []
    for image_id in range(1, 5):
        boxes = rng.integers(1, 40, (int(rng.integers(0, 5)), 4))
        labels = rng.integers(1, 3, len(boxes))
        images.append(
            image(
                image_id, [(int(c), tuple(b), rng.random() < 0.3) for c, b in zip(labels, boxes, strict=True)]
            )
        )
        for _ in range(12):
            box, label = rng.integers(1, 40, 4), rng.integers(1, 3)
            if len(boxes) and rng.random() < 0.8:
                index = rng.integers(len(boxes))
                box, label = np.maximum(boxes[index] + rng.integers(-3, 4, 4), 1), labels[index]
            rows.append((image_id, int(label), rng.random(), box.astype(float)))
    return images, make(*zip(*rows, strict=True))


def devkit(images: list[SimpleNamespace], found: Predictions, label: int, threshold: float) -> tuple:
    """Recall and precision of one class, in the steps of the devkit, with inclusive corners."""
    truth = {}
    for item in images:
        own = item.category_ids == label
        low, size = item.boxes_xywh[own, :2] + 1, item.boxes_xywh[own, 2:]
        truth[item.image_id] = (
            np.concatenate([low, low + size - 1], 1),
            item.is_ignore[own],
            np.zeros(own.sum(), bool),
        )
    order = np.argsort(-found.scores, kind="stable")
    marks = []
    for row in order[found.category_ids[order] == label].tolist():
        boxes, difficult, taken = truth[int(found.image_ids[row])]
        x, y, w, h = found.boxes_xywh[row]
        box, best = np.array([x + 1, y + 1, x + w, y + h]), -1.0
        for index, other in enumerate(boxes):
            sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]) + 1
            common = np.prod(np.maximum(sides, 0))
            union = np.prod(box[2:] - box[:2] + 1) + np.prod(other[2:] - other[:2] + 1) - common
            if common / union > best:
                best, place = common / union, index
        if best > threshold:
            if not difficult[place]:
                marks.append((0, 1) if taken[place] else (1, 0))
                taken[place] = True
            else:
                marks.append((0, 0))
        else:
            marks.append((0, 1))
    tp, fp = np.cumsum(np.array(marks).reshape(-1, 2), axis=0).T
    positives = sum(int((~difficult).sum()) for _, difficult, _ in truth.values())
    return tp / max(positives, 1), tp / np.maximum(tp + fp, 1e-300), positives


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    points = [precision[recall >= t] for t in np.arange(0, 1.1, 0.1)]
    return sum(p.max() if len(p) else 0 for p in points) / 11


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_equal_to_the_devkit_step_by_step(seed: int) -> None:
    images, found = scene(seed)
    rows = {row.category_id: row for row in evaluate_voc(images, CATEGORIES, found).classes}
    assert sorted(rows) == [1, 2]
    for label, row in rows.items():
        values = []
        for threshold in THRESHOLDS:
            recall, precision, positives = devkit(images, found, label, threshold)
            values.append(eleven_points(recall, precision) if positives else None)
        if values[0] is None:
            assert row.ap is None
            assert row.ap50 is None
        else:
            assert row.ap50 == pytest.approx(values[0], abs=1e-12)
            assert row.ap == pytest.approx(np.mean(values), abs=1e-12)


def test_the_area_under_the_curve_by_hand() -> None:
    # hit, miss, hit of two: 1 up to recall 1/2, then 2/3
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert voc_average(recall, precision, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert voc_average(recall, precision, "11point") == pytest.approx((6 + 5 * 2 / 3) / 11)
    none = np.zeros(0)
    assert voc_average(none, none, "area") == voc_average(none, none, "11point") == 0


def test_what_is_difficult_is_neither_hit_nor_miss_nor_missed() -> None:
    images = [image(1, [(1, (0, 0, 10, 10), False), (1, (50, 50, 10, 10), True)])]
    found = make([1] * 3, [1] * 3, [0.9, 0.8, 0.7], [(50, 50, 10, 10), (50, 50, 10, 10), (0, 0, 10, 10)])
    assert evaluate_voc(images, CATEGORIES, found).stats["AP50"] == pytest.approx(1.0)


def test_a_second_find_is_a_mistake_and_the_best_box_alone_counts() -> None:
    images = [image(1, [(1, (0, 0, 10, 10), False), (1, (2, 0, 10, 10), False)])]
    # both look at the first box; the second box stays unfound although it overlaps enough
    found = make([1] * 2, [1] * 2, [0.9, 0.8], [(0, 0, 10, 10), (0, 0, 10, 10)])
    table = run(VocAP(CATEGORIES), images, found).table()
    assert table.hits().tolist() == [True, False]
    assert table.mistakes().tolist() == [False, True]
    assert table.missed().tolist() == [False, True]


def test_detectron2_rounds_and_counts_classes_without_truth() -> None:
    images = [image(1, [(1, (0, 0, 10, 10), False)])]
    found = make([1, 1], [1, 1], [0.90004, 0.9], [(0, 0, 10.04, 10), (60, 60, 5, 5)])
    correct = evaluate_voc(images, CATEGORIES, found)
    same = evaluate_voc(images, CATEGORIES, found, protocol="detectron2")
    assert correct.stats["AP50"] == pytest.approx(1.0)
    assert same.stats["AP50"] == pytest.approx(0.5)  # the dog without truth counts 0
    assert {row.name: row.ap50 for row in correct.classes}["dog"] is None
    assert same.protocol == "detectron2"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_order_and_shares_change_nothing(seed: int, random: object) -> None:
    images, found = scene(seed)
    whole = run(VocAP(CATEGORIES, metric="area"), images, found).result()
    rows = list(range(len(found)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    mixed = found[np.array(rows)]
    parts = [
        run(VocAP(CATEGORIES, metric="area"), own, mixed[np.isin(mixed.image_ids, [i.image_id for i in own])])
        for own in (images[2:], images[:2])
    ]
    assert parts[0].merge(parts[1]).result() == whole
