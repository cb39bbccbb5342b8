"""Where and how VLPart's 33 rows are evaluated, held against the facts of the publication."""

from __future__ import annotations

from typing import Any

import pytest

from partseg.vocabulary import resolve
from pipelines.evaluate import Params
from pipelines.train import Params as TrainParams
from pipelines.zoo import evaluation
from pipelines.zoo_state import covered_rows
from tests.golden import vlpart_zoo
from tests.pipelines.recipes import VLPART as RECIPES
from tests.pipelines.recipes import recipe
from tests.pipelines.test_vlpart_recipes import FACTS, ROWS, ZOO

DATASETS = {  # our stage, its split, and whose rules the original's evaluator follows
    "voc_2007_val": ("voc2007", "val", "voc_detectron2"),
    "coco_2017_val": ("coco", "val2017", "coco"),
    "lvis_v1_minival": ("lvis_minival", "minival", "lvis"),
    "partimagenet_val": ("partimagenet", "val", "coco"),
    "pascal_part_val": ("pascal_part", "val", "vlpart"),
    "paco_lvis_v1_val": ("paco_lvis_v1", "val", "paco"),
}
EVALUATORS = {
    "PascalVOCDetectionEvaluator": "voc_detectron2",
    "COCOEvaluator": "coco",
    "LVISEvaluator": "lvis",
    "PASCALPARTEvaluator": "vlpart",
    "PACOEvaluator": "paco",
}
CLASSES = {("object",): "object", ("part",): "part", ("object", "part"): "all"}
OVERLAPS = {"mask": "segm", "box": "bbox"}
OF_CONFIG = {row["config"]: row for row in FACTS["rows"]}


def measure(metric: dict[str, Any]) -> str:
    """``segm/novel/AP50``, ``bbox/APr``, ``segm/AP50/dog:head``."""
    group = metric.get("category_group", "all").partition("(")[0]
    category = metric.get("category", "all(40)")
    if metric["metric"] == "mask_AP_class":  # 'quadruped head' is Quadruped:Head in the layout
        category = ":".join(word.title() for word in category.split(" "))
    steps = [
        OVERLAPS[metric["iou_type"]],
        None if group == "all" else group,
        metric["metric"].removeprefix("mask_").removesuffix("_class"),
        None if category == "all(40)" else category,
    ]
    return "/".join(step for step in steps if step)


def stage_of(name: str, dataset: str) -> Params:
    row = ZOO.row(name)
    params = recipe(ZOO.recipe_of(row)).stages[evaluation(row.stage, DATASETS[dataset][0])].params
    assert isinstance(params, Params)
    return params


CELLS = [
    (name, dataset)
    for name, row in ROWS.items()
    for dataset in dict.fromkeys(metric["dataset"] for metric in row["metrics"])
]


@pytest.mark.parametrize("name", ROWS)
def test_published_numbers(name: str) -> None:
    row, found = ZOO.row(name), {}
    beside = recipe(ZOO.recipe_of(row)).published
    for metric in ROWS[name]["metrics"]:
        stage = DATASETS[metric["dataset"]][0]
        found.setdefault(stage, {})[measure(metric)] = metric["value"]
        assert beside[evaluation(row.stage, stage)]["metrics"][measure(metric)] == metric["value"]
    assert row.metrics == found
    assert list(row.hours) == ROWS[name]["hours"]


def test_every_cell_has_its_evaluation_and_no_evaluation_is_without_a_cell() -> None:
    expected = {(ZOO.row(name).stage, DATASETS[dataset][0]) for name, dataset in CELLS}
    found = {
        (str(stage.params.weights), str(stage.params.data)): name
        for name, stage in recipe("vlpart").stages.items()
        if isinstance(stage.params, Params)
    }
    assert found == {(weights, data): evaluation(weights, data) for weights, data in expected}
    assert len(CELLS) == 83
    for name in ROWS:
        row = ZOO.row(name)
        assert row in covered_rows(ZOO, recipe(ZOO.recipe_of(row)))


@pytest.mark.parametrize(("name", "dataset"), CELLS)
def test_evaluation(name: str, dataset: str) -> None:
    """By the rules, names and thresholds of the configuration that the dataset is evaluated with there."""
    params, fact = stage_of(name, dataset), FACTS["evaluation"][dataset]
    stage, split, protocol = DATASETS[dataset]
    assert EVALUATORS[fact["evaluator"].partition(" ")[0]] == protocol
    assert (params.weights, params.data, params.split) == (ZOO.row(name).stage, stage, split)
    assert (params.protocol, params.group, params.vocabulary) == (protocol, "all", "texts")
    measured = {OVERLAPS[m["iou_type"]] for m in ROWS[name]["metrics"] if m["dataset"] == dataset}
    assert measured <= set(params.overlap)
    assert set(params.overlap) == ({"bbox"} if dataset == "voc_2007_val" else {"segm", "bbox"})

    model = "swinbase" if ZOO.row(name).stage.startswith("swinb") else "r50"
    tested = vlpart_zoo.settings_of(FACTS, OF_CONFIG[fact[model]])
    vocabulary, size = tested["test.vocabulary"]
    terms = resolve(vocabulary).terms
    assert len(terms) == size
    assert CLASSES[tuple(sorted({term.kind for term in terms}))] == params.classes
    detector = recipe("vlpart").stages[params.weights].params
    assert isinstance(detector, TrainParams)
    used = params.inference or detector.model.inference
    assert used.model_dump() == {
        "short_side": tested["data.min_size_test"],
        "long_side": tested["data.max_size_test"],
        "score_threshold": tested["test.score_thresh"],
        "nms_iou": tested["test.nms_thresh"],
        "detections": tested["test.detections_per_image"],
        "mask_threshold": tested["test.mask_threshold"],
    }


def test_what_the_publication_leaves_open_is_measured_as_well() -> None:
    """Every other measure that may be meant is one of the evaluation's."""
    unclear = {DATASETS[name][0] for name, fact in FACTS["evaluation"].items() if "not" in fact["iou_type"]}
    assert unclear == set(ZOO.maybe) == {"coco", "lvis_minival", "paco_lvis_v1"}
    for dataset, others in ZOO.maybe.items():
        published = {measure for row in ZOO.rows for measure in row.metrics.get(dataset, ())}
        assert set(others) == published
        assert all(len(names) >= 1 for names in others.values())


def test_lvis_is_evaluated_on_minival_and_trained_on_train() -> None:
    found = recipe("vlpart").stages
    assert found["raw_lvis_minival"].params.options == {"splits": ["minival"]}  # type: ignore[attr-defined]
    assert found["raw_lvis_v1"].params.options == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_covers_its_rows(name: str) -> None:
    covered = {row.id for row in covered_rows(ZOO, recipe(name))}
    own = {row.id for row in ZOO.rows if ZOO.recipe_of(row) == name}
    assert own <= covered
    if name == "vlpart":
        assert covered == set(ROWS)
    else:
        assert own
