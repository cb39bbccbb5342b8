from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from partseg.datasets.convert import convert
from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.instance_run import run
from partseg.evaluation.pascal_part import PascalPartAP, evaluate_pascal_part
from partseg.evaluation.predictions import make
from partseg.layout import Dataset
from tests.evaluation.coco_files import (
    ORIGINAL,
    SHARED,
    categories,
    golden,
    predictions,
    records,
)
from tests.evaluation.conftest import CATEGORIES, record, rectangle

SAMPLE = SHARED / "samples" / "pascal_part"
INPUTS = SHARED / "golden" / "pascal_part_convert" / "a" / "inputs.json"
SIZES = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}


def equal(found: APResult, expected: dict[str, float]) -> None:
    """What the original prints in percent, nan included."""
    own = {f"AP-{row.name}": row.ap for row in found.classes}
    assert len(expected) > 100
    for name, value in expected.items():
        ours = own[name] if name in own else found.stats[SIZES.get(name, name)]
        if np.isnan(value):
            assert ours is None, name
        else:
            assert ours is not None, name
            assert 100 * ours == pytest.approx(value, abs=1e-9), name


@pytest.mark.skipif(not (SAMPLE.exists() and INPUTS.exists()), reason="real data are not in the repository")
def test_the_numbers_of_the_original_evaluator_on_real_files_from_the_layout(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    lists = root / "VOCdevkit/VOC2010/ImageSets/Main"
    lists.mkdir(parents=True)
    (root / "Annotations_Part").symlink_to(SAMPLE / "Annotations_Part")
    (root / "VOCdevkit/VOC2010/JPEGImages").symlink_to(SAMPLE / "VOCdevkit/VOC2010/JPEGImages")
    (lists / "val.txt").write_text("\n".join(json.loads(INPUTS.read_text())["split_order"]))
    convert("pascal_part", root, tmp_path / "out", options={"splits": ["val"]})
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    split = dataset.split("val")
    parts = [item for item in dataset.categories if item.kind == "part"]
    images = {int(record.source_key.replace("_", "")): record.image_id for record in split}
    results = json.loads((ORIGINAL / "pascal_real_results.json").read_text())
    for row in results:
        row["image_id"] = images[row["image_id"]]
        row["category_id"] = parts[row["category_id"] - 1].category_id
    expected = json.loads((ORIGINAL / "pascal_part.json").read_text())
    for kind in ("segm", "bbox"):
        found = evaluate_pascal_part(
            split,
            dataset.categories,
            predictions(results),
            protocol="vlpart",
            iou_type=kind,  # type: ignore[arg-type]
            keep_order=True,
        )
        equal(found, expected[f"real_mats:{kind}:fast=False"])
        assert len(found.notes) == 2


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_numbers_of_the_original_evaluator(kind: str) -> None:
    truth = golden("pascal_gt")
    found = run(
        PascalPartAP(categories(truth), iou_type=kind, keep_order=True),
        records(truth),
        predictions(golden("pascal_results")),
    ).result()
    equal(found, golden("pascal_part")[f"synthetic:{kind}:fast=False"])


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
    assert not np.isnan(list(vlpart.metrics().values())).any()
