from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from partseg.evaluation.instance_run import run
from partseg.evaluation.lvis import LvisAP, evaluate_lvis
from partseg.evaluation.predictions import PredictionError, make
from tests.evaluation.coco_files import ORIGINAL, SHARED, categories, predictions, records
from tests.evaluation.conftest import record, rectangle

TRUTH = SHARED / "samples" / "lvis_v0.5" / "lvis_val_100.json"
CATEGORIES = [
    SimpleNamespace(category_id=k, name=f"c{k}", kind="object", group=None, frequency=f)
    for k, f in ((1, "r"), (2, "c"), (3, "f"))
]
BOX, OTHER = (2, 2, 10, 10), (20, 20, 10, 10)


def image(image_id: int, rows: list, absent: tuple = (), not_exhaustive: tuple = ()) -> SimpleNamespace:
    return SimpleNamespace(
        **vars(record(image_id, rows)),
        neg_category_ids=absent,
        not_exhaustive_category_ids=not_exhaustive,
    )


def table(*rows: tuple[int, int, float, tuple]) -> object:
    boxes = [row[3] for row in rows]
    return make(*zip(*((i, c, s) for i, c, s, _ in rows), strict=True), boxes, [rectangle(*b) for b in boxes])


@pytest.mark.skipif(not (TRUTH.exists() and ORIGINAL.exists()), reason="real data are not in the repository")
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_numbers_of_the_original_evaluator_on_real_annotations(kind: str) -> None:
    truth = json.loads(TRUTH.read_text())
    results = json.loads((ORIGINAL / "lvis_results.json").read_text())
    state = run(
        LvisAP(categories(truth), iou_type=kind, keep_order=True), records(truth), predictions(results)
    )
    found = state.result()
    for name, value in json.loads((ORIGINAL / "lvis.json").read_text())[kind].items():
        assert found.stats[name] == pytest.approx(value, abs=1e-9), name
    per_class = np.load(ORIGINAL / "lvis_perclass.npz")
    curves = state.curves()
    expected = per_class[f"{kind}_ap_TKA"]
    assert np.abs(np.nan_to_num(curves.precision.mean(1), nan=-1) - expected).max() < 1e-9
    expected = per_class[f"{kind}_recall_TKA"]
    assert np.abs(np.nan_to_num(curves.recall, nan=-1) - expected).max() < 1e-9


def test_categories_nobody_looked_for_do_not_count() -> None:
    truth = [image(1, [(1, BOX)], absent=(2,)), image(2, [(2, BOX)])]
    right = [(1, 1, 0.5, BOX), (2, 2, 0.5, BOX)]
    assert evaluate_lvis(truth, CATEGORIES, table(*right)).stats["AP"] == pytest.approx(1.0)
    # category 1 is not checked in image 2, category 2 is known to be absent from image 1
    unknown = evaluate_lvis(truth, CATEGORIES, table(*right, (2, 1, 0.9, BOX)))
    assert unknown.stats["APr"] == pytest.approx(1.0)
    absent = evaluate_lvis(truth, CATEGORIES, table(*right, (1, 2, 0.9, BOX)))
    assert absent.stats["APc"] == pytest.approx(0.5)
    assert absent.stats["APf"] is None


def test_mistakes_where_not_all_are_annotated_do_not_count() -> None:
    found = table((1, 1, 0.9, OTHER), (1, 1, 0.5, BOX))
    all_there = [image(1, [(1, BOX)])]
    some_missing = [image(1, [(1, BOX)], not_exhaustive=(1,))]
    assert evaluate_lvis(all_there, CATEGORIES, found).stats["AP"] == pytest.approx(0.5)
    assert evaluate_lvis(some_missing, CATEGORIES, found).stats["AP"] == pytest.approx(1.0)


def test_only_the_best_of_an_image_count_over_all_categories() -> None:
    truth = [image(1, [(1, BOX), (2, BOX)])]
    found = table((1, 1, 0.9, BOX), (1, 2, 0.5, BOX))
    assert evaluate_lvis(truth, CATEGORIES, found, max_detections=1).stats["AP"] == pytest.approx(0.5)
    assert "AR@1" in evaluate_lvis(truth, CATEGORIES, found, max_detections=1).stats


def test_empty_masks_are_left_out() -> None:
    empty = make([1, 1], [1, 1], [0.9, 0.5], [BOX, BOX], [rectangle(0, 0, 0, 0), rectangle(*BOX)])
    assert evaluate_lvis([image(1, [(1, BOX)])], CATEGORIES, empty).stats["AP"] == pytest.approx(1.0)


def test_categories_without_a_frequency_are_refused() -> None:
    odd = [SimpleNamespace(category_id=1, name="a", kind="object", group=None, frequency=None)]
    with pytest.raises(PredictionError, match="frequency None"):
        LvisAP(odd)
