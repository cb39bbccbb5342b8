"""A detector and a dataset with ground truth → predictions and average precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field

from partseg.models.config import InferenceConfig
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, chosen, open_dataset, reading_workers
from pipelines.params import Ref, StageParams
from pipelines.train import load_detector
from pipelines.vocabulary import load_table

VERSION = "1"
PREDICTIONS, RESULTS = "predictions.parquet", "metrics.json"


class Params(StageParams):
    """What to evaluate, and where.

    Attributes:
        weights: the train stage.
        vocabulary: embeddings of the category names to look for.
        data: a dataset with ground truth.
        split: one of its splits.
        kind: look for its parts or its objects.
        group: only those of this group.
        overlap: of masks (``segm``), boxes (``bbox``) or both.
        inference: sizes and thresholds; the model's own where not given.
    """

    weights: Ref
    vocabulary: Ref
    data: Ref
    split: str = "val"
    kind: Literal["part", "object"] = "part"
    group: Group = "all"
    overlap: tuple[Literal["segm", "bbox"], ...] = Field(default=("segm", "bbox"), min_length=1)
    inference: InferenceConfig | None = None


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Predict on every image, keep the predictions, score them."""
    from partseg.evaluation.coco import evaluate
    from partseg.evaluation.predictions import concatenate, make, write_predictions
    from partseg.training.inference import detect_split

    dataset = open_dataset(inputs[params.data])
    split = dataset.split(params.split)
    wanted = chosen(dataset.categories, kind=params.kind, group=params.group)
    ids = [category.category_id for category in wanted]
    text = load_table(inputs[params.vocabulary]).rows([category.name for category in wanted])
    tables = []
    detector = load_detector(inputs[params.weights])
    for row, found in detect_split(
        detector, split, text, options=params.inference, workers=reading_workers(report), report=report
    ):
        corners = found.boxes.double().numpy()
        corners[:, 2:] -= corners[:, :2]  # xyxy to xywh
        labels = [ids[label] for label in found.labels.tolist()]
        tables.append(make(split[row].image_id, labels, found.scores.double().numpy(), corners, found.rles))
    predictions = concatenate(tables)
    write_predictions(out / PREDICTIONS, predictions)
    results = [
        evaluate(split, dataset.categories, predictions, iou_type=overlap, category_ids=ids)
        for overlap in params.overlap
    ]
    content = {result.iou_type: result.as_dict() for result in results}
    (out / RESULTS).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return {name: value for result in results for name, value in result.metrics().items()}
