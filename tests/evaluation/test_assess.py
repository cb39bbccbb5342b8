from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from partseg.errors import PartsegError
from partseg.evaluation.assess import assess
from partseg.evaluation.assessment import assessment
from partseg.evaluation.coco import evaluate
from partseg.evaluation.forms import find
from partseg.evaluation.predictions import PredictionError, Predictions, write_predictions
from partseg.evaluation.protocols import PROTOCOLS, default_protocol
from partseg.evaluation.result_json import read_results
from partseg.evaluation.worst_images import worst_images
from partseg.layout import Dataset
from tests.evaluation.scenes import BODY, HEAD, SIZE, TAIL, guesses, make_dataset, predicted


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path, 4)


def table(folder: Path, predictions: Predictions) -> Path:
    write_predictions(folder / "predictions.parquet", predictions)
    return folder / "predictions.parquet"


def results(folder: Path, predictions: Predictions, dataset: Dataset, **changes: Any) -> Path:
    """The predictions as COCO results JSON, with the ids of the source."""
    categories = {item.category_id: item.source_id for item in dataset.categories}
    first = dataset.split("val")[0].image_id
    rows = [
        {
            "image_id": int(predictions.image_ids[row]) - first + 100,
            "category_id": categories[int(predictions.category_ids[row])],
            "score": float(predictions.scores[row]),
            "segmentation": {"size": [SIZE, SIZE], "counts": (predictions.rles[row] or b"").decode()},
            **changes,
        }
        for row in range(len(predictions))
    ]
    path = folder / "results.json"
    path.write_bytes(orjson.dumps(rows))
    return path


def test_a_table_has_the_numbers_of_its_family(pets: Dataset, tmp_path: Path) -> None:
    found = guesses(pets, 0, 1.0)
    segm, bbox = assess(pets, "val", table(tmp_path, found))
    assert (segm.name, bbox.name, segm.protocol.name) == ("segm", "bbox", "coco")
    assert segm.result == evaluate(pets.split("val"), pets.categories, found)
    assert bbox.metrics() == evaluate(pets.split("val"), pets.categories, found, iou_type="bbox").metrics()
    assert [item.result for item in assess(pets, "val", tmp_path)] == [segm.result, bbox.result]


def test_details_change_no_number(pets: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path, guesses(pets, 0, 1.0))
    plain = [item.result for item in assess(pets, "val", path)]
    assert [item.result for item in assess(pets, "val", path, details=True)] == plain


def test_result_json_has_the_ids_of_the_source(pets: Dataset, tmp_path: Path) -> None:
    found = guesses(pets, 0, 1.0)
    path = results(tmp_path, found, pets)
    read = read_results(path, pets, "val", "source").canonical()
    expected = found.canonical()
    assert read.rles == expected.rles
    for name in ("image_ids", "category_ids", "scores", "boxes_xywh"):
        assert np.array_equal(getattr(read, name), getattr(expected, name)), name
    by_json = assess(pets, "val", path, ids="source", iou_types=["segm"])
    by_table = assess(pets, "val", table(tmp_path, found), iou_types=["segm"])
    assert by_json[0].result == by_table[0].result


def test_result_json_may_have_boxes_alone(pets: Dataset, tmp_path: Path) -> None:
    image_id = pets.split("val")[0].image_id
    path = tmp_path / "boxes.json"
    row = {"image_id": image_id, "category_id": 2, "score": 0.5, "bbox": list(HEAD)}
    path.write_bytes(orjson.dumps([row]))
    (item,) = assess(pets, "val", path, ids="layout")
    assert item.name == "bbox"
    assert item.metrics()["bbox/AP50"] > 0


def test_uncompressed_masks_are_read(pets: Dataset, tmp_path: Path) -> None:
    counts = [0, SIZE * SIZE]
    path = results(tmp_path, predicted([(1, 2, 0.5, HEAD)]), pets)
    rows = orjson.loads(path.read_bytes())
    rows[0]["image_id"] = 100
    rows[0]["segmentation"]["counts"] = counts
    path.write_bytes(orjson.dumps(rows))
    read = read_results(path, pets, "val", "source")
    assert read.boxes_xywh.tolist() == [[0, 0, SIZE, SIZE]]


def test_vlparts_ids_are_digits_and_places(pets: Dataset, tmp_path: Path) -> None:
    path = results(tmp_path, predicted([(1, 2, 0.5, HEAD)]), pets, image_id=2008000001, category_id=3)
    read = read_results(path, pets, "val", "vlpart")
    assert read.image_ids.tolist() == [pets.split("val")[1].image_id]
    assert read.category_ids.tolist() == [5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 7}, "image id 7"),
        ({"category_id": 99}, "category id 99"),
        ({"segmentation": {"size": [3, 4], "counts": "abc"}}, r"\[3, 4\] pixels"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "not run-lengths"),
        ({"segmentation": None}, "neither a mask nor a box"),
        ({"segmentation": None, "bbox": [1, 2]}, "not four numbers"),
        ({"score": None}, "lacks"),
    ],
)
def test_bad_rows_are_told(changes: dict[str, Any], message: str, pets: Dataset, tmp_path: Path) -> None:
    path = results(tmp_path, predicted([(1, 2, 0.5, HEAD)]), pets, **{"image_id": 100, **changes})
    with pytest.raises(PredictionError, match=message):
        read_results(path, pets, "val", "source")


def test_images_without_ids_of_a_source_are_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 2, source_ids=False)
    path = results(tmp_path, predicted([(1, 2, 0.5, HEAD)]), dataset)
    with pytest.raises(PartsegError, match="no ids in their source"):
        read_results(path, dataset, "val", "source")


def test_forms_are_told_apart(pets: Dataset, tmp_path: Path) -> None:
    rows = results(tmp_path, predicted([(1, 2, 0.5, HEAD)]), pets)
    assert find(rows, pets, "val").form == "results"
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(maps / "0.png")
    assert find(maps, pets, "val").form == "semantic"
    (maps / "p.json").write_bytes(orjson.dumps({"annotations": [{"segments_info": []}]}))
    assert find(maps, pets, "val").form == "panoptic"
    assert find(maps, pets, "val").folder == maps
    (maps / "p").mkdir()
    assert find(maps / "p.json", pets, "val").folder == maps / "p"
    (maps / "q.json").write_bytes((maps / "p.json").read_bytes())
    with pytest.raises(PredictionError, match="2 panoptic JSON"):
        find(maps, pets, "val")
    with pytest.raises(PredictionError, match="neither JSON"):
        find(maps / "p", pets, "val")
    with pytest.raises(PredictionError, match="no predictions"):
        find(tmp_path / "gone", pets, "val")


def test_several_protocols_stand_beside_each_other(pets: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path, guesses(pets, 0, 1.0))
    names = ["coco", "parent_aware", "class_agnostic", "voc2012"]
    items = assess(pets, "val", path, protocols=names)
    assert [item.name for item in items] == [
        "segm",
        "bbox",
        *(f"{name}/{kind}" for name in names[1:3] for kind in ("segm", "bbox")),
        "voc2012/bbox",
    ]
    metrics = {name: value for item in items for name, value in item.metrics().items()}
    assert metrics["parent_aware/segm/AP"] <= metrics["segm/AP"]
    assert "class_agnostic/segm/mAR100" in metrics
    assert assess(pets, "val", path, protocols=["correct"])[0].protocol.name == "coco"


def test_kinds_choose_what_is_scored(pets: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path, guesses(pets, 0, 1.0))
    scored = {
        kind: {row.name for row in assess(pets, "val", path, classes=kind)[0].result.classes}
        for kind in ("part", "object", "all", None)
    }
    assert scored["object"] == {"cat", "dog"}
    assert scored["part"] == scored[None] == {"cat:head", "cat:tail", "dog:head"}
    assert scored["all"] == scored["object"] | scored["part"]


def test_what_does_not_go_together_is_told(pets: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path, guesses(pets, 0, 1.0))
    for options, message in (
        ({"protocols": ["panopticapi"]}, "does not evaluate a table"),
        ({"protocols": ["bogus"]}, "no protocol 'bogus'"),
        ({"protocols": ["voc2007"], "iou_types": ["segm"]}, "compares boxes"),
        ({"protocols": ["lvis"]}, "frequency"),
    ):
        with pytest.raises(PartsegError, match=message):
            assess(pets, "val", path, **options)  # type: ignore[arg-type]


def test_every_protocol_is_named_as_itself() -> None:
    assert all(name == item.name for name, item in PROTOCOLS.items())


def test_datasets_choose_their_protocol(pets: Dataset) -> None:
    assert default_protocol("table", pets) == "coco"
    assert default_protocol("semantic", pets) == "mmseg"
    for source, name in (("pascal_part", "pascal_part"), ("paco_lvis_v1", "paco"), ("voc2007", "voc2007")):
        pets.manifest.converter["name"] = source
        assert default_protocol("results", pets) == name


def test_an_assessment_is_plain_json(pets: Dataset, tmp_path: Path) -> None:
    path = table(tmp_path, guesses(pets, 0, 1.0))
    items = assess(pets, "val", path, protocols=["coco", "class_agnostic"], details=True)
    content = assessment(items, about={"split": "val"}, samples=20)
    assert orjson.loads(orjson.dumps(content)) == content
    segm, agnostic = content["evaluations"][0], content["evaluations"][2]
    assert segm["protocol"]["name"] == "coco"
    assert segm["intervals"]["segm/AP"]["value"] == segm["metrics"]["segm/AP"]
    assert segm["errors"]["ap50"] == pytest.approx(segm["metrics"]["segm/AP50"])
    assert [part["name"] for part in segm["confusion"]] == ["cat"]
    assert [len(curve["precision"]) for curve in segm["curves"]] == [101] * 3
    assert np.mean(segm["curves"][0]["precision"]) == pytest.approx(segm["metrics"]["segm/AP50"], abs=1e-5)
    assert agnostic["intervals"] == {}
    assert segm["class_intervals"] == {}  # no class is in five images


def test_a_comparison_is_part_of_an_assessment(pets: Dataset, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = assess(pets, "val", table(tmp_path, guesses(pets, 0, 2.0)))
    two = assess(pets, "val", table(tmp_path / "b", guesses(pets, 1, 0.2)))
    content = assessment(one, about={}, other=two, samples=50)
    gap = content["evaluations"][0]["differences"]["segm/AP"]
    assert gap["second"] == two[0].metrics()["segm/AP"]
    assert gap["value"] == gap["second"] - gap["first"]


def test_the_worst_image_comes_first(pets: Dataset, tmp_path: Path) -> None:
    ids = [record.image_id for record in pets.split("val")]
    found = predicted(
        [
            (ids[0], 2, 0.9, HEAD),
            (ids[0], 3, 0.9, TAIL),
            (ids[1], 5, 0.9, HEAD),
            (ids[2], 2, 0.9, (25, 2, 5, 5)),  # and the tail is missed
            (ids[2], 3, 0.3, (30, 2, 5, 5)),
            (ids[3], 1, 0.9, BODY),  # not scored: a head is missed
        ]
    )
    (item,) = assess(pets, "val", table(tmp_path, found), iou_types=["segm"])
    worst = worst_images(item, 5)
    assert [(row.image_id, row.missed, row.wrong) for row in worst] == [(ids[2], 2, 2), (ids[3], 1, 0)]
    assert worst[0].badness == pytest.approx(2 + 0.9 + 0.3)
    assert worst_images(item, 1) == worst[:1]


def test_the_documentation_names_every_protocol() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    named_there = set(re.findall(r"`(\w+)`", text.partition("## Protocols")[2].partition("##")[0]))
    assert PROTOCOLS.keys() <= named_there
