from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from partseg.evaluation.instance_run import run
from partseg.evaluation.pascal_part import PascalPartAP, evaluate_pascal_part
from partseg.evaluation.predictions import make
from tests.evaluation.coco_files import categories, golden, predictions, records
from tests.evaluation.conftest import CATEGORIES, record, rectangle


def one_image_more(image: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(image), "image_id": 77, "ann_ids": image.ann_ids + 1000})


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_numbers_of_the_original_evaluator(kind: str) -> None:
    truth = golden("pascal_gt")
    found = run(
        PascalPartAP(categories(truth), iou_type=kind, keep_order=True),
        records(truth),
        predictions(golden("pascal_results")),
    ).result()
    names = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
    own = {f"AP-{row.name}": row.ap for row in found.classes}
    expected = golden("pascal_part")[f"synthetic:{kind}:fast=False"]
    assert len(expected) > 100
    for name, value in expected.items():
        ours = own[name] if name in own else found.stats[names.get(name, name)]
        assert ours is not None
        assert 100 * ours == pytest.approx(value, abs=1e-9), name


def test_the_first_annotation_of_the_original_file_cannot_be_found() -> None:
    boxes = [(2, 2, 10, 10), (5, 5, 10, 10)]
    truth = [record(1, [(2, boxes[0])]), record(2, [(2, boxes[1])])]
    found = make([1, 2], [2, 2], [0.9, 0.8], boxes, [rectangle(*box) for box in boxes])
    correct = evaluate_pascal_part(truth, CATEGORIES, found)
    vlpart = evaluate_pascal_part(truth, CATEGORIES, found, protocol="vlpart")
    assert correct.stats["AP-unseen"] == pytest.approx(1.0)
    assert vlpart.stats["AP50-unseen"] is not None
    assert vlpart.stats["AP50-unseen"] < 0.3  # one of two, behind a mistake
    assert (correct.protocol, vlpart.protocol) == ("correct", "vlpart")


def test_a_part_counts_as_small_by_the_box_of_the_original_file() -> None:
    box = (2, 2, 32, 33)  # 1056 pixels, 31 x 32 in VLPart's file
    found = make([1], [2], [0.9], [box], [rectangle(*box)])
    truth = [record(0, [(2, (0, 0, 4, 4))]), record(1, [(2, box)])]
    correct = evaluate_pascal_part(truth, CATEGORIES, found)
    vlpart = evaluate_pascal_part(truth, CATEGORIES, found, protocol="vlpart")
    assert correct.stats["AP_medium"] == pytest.approx(1.0)
    assert vlpart.stats["AP_medium"] is None


def test_images_without_parts_are_left_out_by_vlpart_alone() -> None:
    box = (2, 2, 10, 10)
    truth = [record(1, [(3, box)]), record(2, [(2, box)]), record(3, [(1, (0, 0, 30, 30))])]
    found = make([2, 3], [2, 2], [0.5, 0.9], [box] * 2, [rectangle(*box)] * 2)
    correct = evaluate_pascal_part(truth, CATEGORIES, found)
    vlpart = evaluate_pascal_part(truth, CATEGORIES, found, protocol="vlpart")
    assert correct.stats["AP-unseen"] == pytest.approx(0.5)
    assert vlpart.stats["AP-unseen"] == pytest.approx(1.0)
    assert (correct.images, vlpart.images) == (3, 2)


def test_a_group_with_a_class_that_has_no_truth_has_no_mean_for_vlpart_and_it_says_so() -> None:
    box = (2, 2, 10, 10)
    truth = [record(1, [(3, box)])]  # of the two base parts, one
    found = make([1], [3], [0.9], [box], [rectangle(*box)])
    correct = evaluate_pascal_part(truth, CATEGORIES, found)
    vlpart = evaluate_pascal_part(truth, CATEGORIES, found, protocol="vlpart")
    assert correct.stats["AP-seen"] == pytest.approx(1.0)
    assert vlpart.stats["AP-seen"] is None
    assert "1 of 2 base classes have no truth" in " ".join(vlpart.notes)
    assert not np.isnan([v for v in vlpart.metrics().values()]).any()
