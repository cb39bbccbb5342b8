from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import orjson
import pytest
import torch
from pydantic import ValidationError

import partseg.training.inference
from partseg.evaluation.assess import assess
from partseg.evaluation.predictions import Predictions
from partseg.evaluation.protocols import PROTOCOLS
from partseg.layout import Dataset
from partseg.models.config import load_config
from pipelines import evaluate
from pipelines.artifact import StageContext
from pipelines.recipe import CONFIGS, load_recipe
from tests.evaluation.scenes import guesses, make_dataset

NEEDED = {"weights": "w", "vocabulary": "v", "data": "d"}


def params(**fields: Any) -> evaluate.Params:
    return evaluate.Params(**NEEDED, **fields)


def test_the_protocols_are_those_of_objects_and_parts() -> None:
    with_attributes = {"paco_usual", "paco_lb", "paco_ub"}
    of_instances = {name for name, item in PROTOCOLS.items() if item.forms == ("table", "results")}
    assert set(get_args(evaluate.Protocol)) == of_instances - with_attributes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "voc2007"}, r"give overlap: \[bbox\]"),
        ({"protocol": "parent_aware"}, "give classes: all"),
        ({"protocol": "panopticapi"}, "protocol"),
        ({"kind": "object"}, "kind"),
    ],
)
def test_what_does_not_go_together_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        params(**fields)


def test_a_recipe_can_choose_classes_and_protocol(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "stages:\n"
        "  raw: {kind: acquire, source: pascal_part, synthetic: {seed: 0, train: 2, val: 2, size: 64}}\n"
        "  parts: {kind: convert, raw: raw}\n"
        "  texts: {kind: vocabulary, data: [parts], encoder: 'offline:128'}\n"
        "  model: {kind: pretrained, detector: {include: models/tiny.yaml}, seed: 1}\n"
        "  boxes: {kind: evaluate, weights: model, vocabulary: texts, data: parts, classes: object,"
        " overlap: [bbox], protocol: voc_detectron2, inference: {detections: 300, score_threshold: 0.0001}}\n"
    )
    chosen = load_recipe(str(path)).stages["boxes"].params
    assert isinstance(chosen, evaluate.Params)
    assert (chosen.classes, chosen.protocol) == ("object", "voc_detectron2")
    assert chosen.inference is not None
    assert chosen.inference.detections == 300


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset, and in place of a detector one that finds what is looked for as ``guesses`` have it."""
    dataset = make_dataset(tmp_path)
    found = guesses(dataset, 0, 1.0)
    table = SimpleNamespace(rows=lambda names: list(names))
    monkeypatch.setattr(evaluate, "open_dataset", lambda artifact: dataset)
    monkeypatch.setattr(evaluate, "load_table", lambda artifact: table)
    detector = SimpleNamespace(config=load_config(CONFIGS / "models" / "tiny.yaml"))
    monkeypatch.setattr(evaluate, "load_detector", lambda artifact: detector)
    numbers = {item.name: item.category_id for item in dataset.categories}

    def detect(detector: Any, split: Any, names: list[str], **options: Any) -> Any:
        ids = [numbers[name] for name in names]
        for row in range(len(split)):
            yield row, detected(found.of_image(split[row].image_id), ids)

    monkeypatch.setattr(partseg.training.inference, "detect_split", detect)
    return dataset


def detected(found: Predictions, ids: list[int]) -> SimpleNamespace:
    own = found[np.isin(found.category_ids, ids)]
    boxes = own.boxes_xywh.copy()
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([ids.index(category) for category in own.category_ids.tolist()], dtype=torch.int64)
    return SimpleNamespace(
        boxes=torch.from_numpy(boxes), labels=labels, scores=torch.from_numpy(own.scores), rles=own.rles
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"classes": "object"},
        {"classes": "all", "protocol": "parent_aware"},
        {"protocol": "pascal_part"},
        {"protocol": "vlpart", "overlap": ("segm",)},
        {"protocol": "class_agnostic"},
        {"classes": "object", "protocol": "voc_detectron2", "overlap": ("bbox",)},
    ],
    ids=str,
)
def test_the_stage_has_the_numbers_of_the_command(
    fields: dict[str, Any], stage: Dataset, tmp_path: Path
) -> None:
    chosen, out = params(**fields), tmp_path / "out"
    out.mkdir()
    inputs: Any = dict.fromkeys("wvd")
    metrics = evaluate.run(chosen, inputs, out, StageContext(work=tmp_path))
    written = orjson.loads((out / evaluate.RESULTS).read_bytes())
    assert tuple(written) == tuple(sorted(chosen.overlap))
    items = assess(
        stage,
        "val",
        out / evaluate.PREDICTIONS,
        protocols=[chosen.protocol],
        classes="part" if chosen.protocol == "parent_aware" else chosen.classes,
        iou_types=chosen.overlap,
    )
    assert metrics == {name: value for item in items for name, value in item.metrics().items()}
    assert metrics
