from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.coco import CocoAP, evaluate
from partseg.evaluation.instance_run import run
from partseg.evaluation.predictions import PredictionError, make
from tests.evaluation.coco_files import ORIGINAL, categories, predictions, records
from tests.evaluation.conftest import CATEGORIES, Kind, record, rectangle

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "results_coco"


def by_name(result: APResult) -> dict[str, float | None]:
    return {row.name: row.ap for row in result.classes}


def test_perfect_predictions_score_one_and_missed_classes_zero(two_images: list[SimpleNamespace]) -> None:
    boxes = [(2, 2, 10, 10), (5, 5, 10, 10), (20, 5, 10, 10)]
    predictions = make([1, 2, 2], [2, 2, 3], [0.9, 0.8, 0.7], boxes, [rectangle(*b) for b in boxes])
    for kind in ("segm", "bbox"):
        result = evaluate(two_images, CATEGORIES, predictions, iou_type=kind)
        assert by_name(result) == pytest.approx({"dog:head": 1.0, "cat:head": 1.0, "cat:tail": 0.0})
        assert result.stats["AP"] == pytest.approx(2 / 3)
        assert result.groups["novel"]["AP"] == pytest.approx(1.0)
        assert result.groups["base"] == pytest.approx({"AP": 0.5, "AP50": 0.5, "classes": 2})


def test_average_precision_of_a_ranked_list_by_hand(two_images: list[SimpleNamespace]) -> None:
    # Two heads in the data. Ranked: hit, miss, hit. Precision is 1 up to recall 1/2 and 2/3 above:
    # 51 of the 101 recall points see 1, 50 see 2/3.
    boxes = [(2, 2, 10, 10), (25, 25, 10, 10), (5, 5, 10, 10)]
    predictions = make([1, 1, 2], [2, 2, 2], [0.9, 0.8, 0.7], boxes, [rectangle(*b) for b in boxes])
    result = evaluate(two_images, CATEGORIES, predictions)
    assert by_name(result)["dog:head"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_overlap_decides_at_which_thresholds_a_prediction_counts() -> None:
    # Overlap 80/120 = 0.667: a hit at 0.50, 0.55, 0.60 and 0.65, a miss at the other six thresholds.
    predictions = make([1], [2], [1.0], [(2, 0, 10, 10)], [rectangle(2, 0, 10, 10)])
    result = evaluate([record(1, [(2, (0, 0, 10, 10))])], CATEGORIES, predictions)
    assert result.classes[0].ap == pytest.approx(0.4)
    assert result.classes[0].ap50 == pytest.approx(1.0)
    assert result.stats["AP75"] == pytest.approx(0.0)


def test_masks_and_boxes_are_different_questions() -> None:
    # A thin L-shape fills little of its box: the same box, a mask overlap far below one half.
    truth = record(1, [(2, (0, 0, 20, 20))])
    mask = np.zeros((40, 40), np.uint8, order="F")
    mask[:20, 0], mask[19, :20] = 1, 1
    predictions = make([1], [2], [1.0], [(0, 0, 20, 20)], [coco_mask.encode(mask)["counts"]])
    assert evaluate([truth], CATEGORIES, predictions, iou_type="bbox").classes[0].ap == pytest.approx(1.0)
    assert evaluate([truth], CATEGORIES, predictions, iou_type="segm").classes[0].ap == pytest.approx(0.0)


def test_ignored_ground_truth_is_neither_hit_nor_miss() -> None:
    truth = record(1, [(2, (0, 0, 10, 10)), (2, (20, 20, 10, 10))], is_ignore=[False, True])
    boxes = [(20, 20, 10, 10), (0, 0, 10, 10)]
    predictions = make([1, 1], [2, 2], [0.9, 0.8], boxes, [rectangle(*b) for b in boxes])
    assert evaluate([truth], CATEGORIES, predictions).classes[0].ap == pytest.approx(1.0)


def test_only_part_categories_are_scored_unless_others_are_chosen(two_images: list[SimpleNamespace]) -> None:
    predictions = make([1], [1], [0.9], [(0, 0, 30, 30)], [rectangle(0, 0, 30, 30)])
    assert "dog" not in by_name(evaluate(two_images, CATEGORIES, predictions))
    chosen = evaluate(two_images, CATEGORIES, predictions, category_ids=[1], groups={"all": [1]})
    assert by_name(chosen) == pytest.approx({"dog": 1.0})
    assert chosen.groups["all"]["AP"] == pytest.approx(1.0)


def test_classes_without_ground_truth_do_not_enter_any_mean() -> None:
    truth = [record(1, [(3, (0, 0, 10, 10))])]
    predictions = make(
        [1, 1], [3, 4], [0.9, 0.9], np.array([[0, 0, 10, 10]] * 2), [rectangle(0, 0, 10, 10)] * 2
    )
    result = evaluate(truth, CATEGORIES, predictions)
    assert by_name(result)["cat:tail"] is None
    assert result.groups["base"]["classes"] == 1
    assert result.groups["novel"]["AP"] is None
    assert "segm/novel/AP" not in result.metrics()


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)))
def test_the_order_of_predictions_changes_nothing_even_with_equal_scores(order: list[int]) -> None:
    rng = np.random.default_rng(3)
    truth = [record(i, [(2, (3, 3, 10, 10)), (3, (20, 20, 8, 8))]) for i in (1, 2)]
    boxes = rng.integers(0, 8, (8, 4)) + np.array([0, 0, 4, 4])
    predictions = make(
        [1, 2] * 4, [2, 2, 3, 3] * 2, [0.5] * 8, boxes, [rectangle(*map(int, b)) for b in boxes]
    )
    shuffled = predictions[np.array(order, dtype=np.int64)]
    assert evaluate(truth, CATEGORIES, shuffled) == evaluate(truth, CATEGORIES, predictions)


def test_nothing_is_printed(two_images: list[SimpleNamespace], capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(two_images, CATEGORIES, make([], [], [], []))
    assert result.stats["AP"] == 0.0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("image_id", "category_id", "message"), [(9, 2, "id 9"), (1, 77, "category id 77"), (1, 2, "has no mask")]
)
def test_predictions_that_do_not_belong_here_are_refused(
    two_images: list[SimpleNamespace], image_id: int, category_id: int, message: str
) -> None:
    predictions = make([image_id], [category_id], [0.5], [(0, 0, 5, 5)])
    with pytest.raises(PredictionError, match=message):
        evaluate(two_images, CATEGORIES, predictions)


PUBLISHED = {  # pycocotools 2.0.11 on the sample results of the COCO API
    "bbox": "0.504581 0.696973 0.572982 0.585626 0.519400 0.501398 "
    "0.386813 0.593680 0.595353 0.639811 0.566421 0.564291",
    "segm": "0.319545 0.562288 0.298927 0.387374 0.310183 0.326934 "
    "0.268230 0.415449 0.416839 0.469450 0.376759 0.381472",
}


@pytest.mark.skipif(not SAMPLES.exists(), reason="the COCO sample results are not part of the repository")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_twelve_coco_numbers_on_the_sample_results(kind: str, box: Callable[..., bytes]) -> None:
    truth = json.loads((SAMPLES / "annotations/instances_val2014_100.json").read_text())
    results = json.loads((SAMPLES / f"results/instances_val2014_fake{kind}100_results.json").read_text())
    split, sizes = [], {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        split.append(
            SimpleNamespace(
                image_id=image["id"],
                height=image["height"],
                width=image["width"],
                ann_ids=np.array([a["id"] for a in own]),
                category_ids=np.array([a["category_id"] for a in own]),
                boxes_xywh=np.array([a["bbox"] for a in own], dtype=float).reshape(-1, 4),
                areas=np.array([a["area"] for a in own], dtype=float),
                rles=[_rle(a["segmentation"], *sizes[image["id"]]) for a in own],
                is_crowd=np.array([bool(a["iscrowd"]) for a in own]),
                is_ignore=np.zeros(len(own), bool),
            )
        )
    kept = [r for r in results if r["image_id"] in sizes]
    rles = [r["segmentation"]["counts"].encode() for r in kept] if kind == "segm" else None
    boxes = [r["bbox"] for r in kept] if kind == "bbox" else np.zeros((len(kept), 4))
    predictions = make(
        [r["image_id"] for r in kept],
        [r["category_id"] for r in kept],
        [r["score"] for r in kept],
        boxes,
        rles,
    )
    categories = [Kind(c["id"], c["name"], "object") for c in truth["categories"]]
    result = evaluate(split, categories, predictions, iou_type=kind, keep_order=True)  # type: ignore[arg-type]
    assert [round(v, 6) for v in result.stats.values() if v is not None] == list(
        map(float, PUBLISHED[kind].split())
    )


def _rle(segmentation: object, h: int, w: int) -> bytes:
    if isinstance(segmentation, list):
        return bytes(coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w))["counts"])
    return bytes(coco_mask.frPyObjects(segmentation, h, w)["counts"])


@pytest.mark.skipif(not ORIGINAL.exists(), reason="real data are not in the repository")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_every_number_of_pycocotools_on_panoptic_annotations(kind: str) -> None:
    truth = json.loads((ORIGINAL / "coco_gt.json").read_text())
    results = json.loads((ORIGINAL / "coco_results.json").read_text())
    state = run(
        CocoAP(categories(truth), iou_type=kind, keep_order=True),  # type: ignore[arg-type]
        records(truth),
        predictions(results),
    )
    stats = [-1 if value is None else value for value in state.result().stats.values()]
    assert stats == pytest.approx(json.loads((ORIGINAL / "coco.json").read_text())[kind], abs=1e-9)
    per_class = np.load(ORIGINAL / "coco_perclass.npz")
    for place, limit in enumerate((1, 10, 100)):
        curves = state.curves(limit=limit)
        for values, name in ((curves.precision.mean(axis=1), "ap"), (curves.recall, "recall")):
            expected = per_class[f"{kind}_{name}_TKAM"][..., place]
            assert np.abs(np.nan_to_num(values, nan=-1) - expected).max() < 1e-9
