"""A detector and a dataset with ground truth → predictions and average precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import orjson
from pydantic import Field, model_validator

from partseg.errors import RecipeError
from partseg.models.config import InferenceConfig
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, KindOfClass, chosen, open_dataset, reading_workers
from pipelines.params import Ref, StageParams
from pipelines.train import load_detector
from pipelines.vocabulary import load_table

VERSION = "2"
PREDICTIONS, RESULTS = "predictions.parquet", "metrics.json"

Protocol = Literal[
    "coco",
    "lvis",
    "voc2007",
    "voc2012",
    "voc_detectron2",
    "pascal_part",
    "vlpart",
    "paco",
    "parent_aware",
    "class_agnostic",
]
"""Whose rules are followed, see :data:`partseg.evaluation.protocols.PROTOCOLS`. Those that need attributes
are not here, since detectors do not tell any."""


class Params(StageParams):
    """What to evaluate, and where.

    Attributes:
        weights: the train stage.
        vocabulary: embeddings of the category names to look for.
        data: a dataset with ground truth.
        split: one of its splits.
        classes: look for its parts, its objects or both.
        group: only those of this group.
        overlap: of masks (``segm``), boxes (``bbox``) or both; VOC's protocols compare boxes.
        protocol: whose rules are followed. ``parent_aware`` scores parts and needs objects as well.
        inference: sizes, thresholds and detections per image; the model's own where not given.
    """

    weights: Ref
    vocabulary: Ref
    data: Ref
    split: str = "val"
    classes: KindOfClass = "part"
    group: Group = "all"
    overlap: tuple[Literal["segm", "bbox"], ...] = Field(default=("segm", "bbox"), min_length=1)
    protocol: Protocol = "coco"
    inference: InferenceConfig | None = None

    @model_validator(mode="after")
    def _suits(self) -> Self:
        if self.protocol.startswith("voc") and self.overlap != ("bbox",):
            raise ValueError(f"the protocol {self.protocol} compares boxes: give overlap: [bbox]")
        if self.protocol == "parent_aware" and self.classes != "all":
            raise ValueError("the protocol parent_aware needs objects and parts: give classes: all")
        return self


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Predict on every image, keep the predictions, score them.

    Raises:
        RecipeError: masks are to be compared, and the detector finds none.
    """
    from partseg.evaluation.instance_run import run as match_all
    from partseg.evaluation.predictions import write_predictions
    from partseg.evaluation.protocols import PROTOCOLS, instance_state
    from partseg.training.inference import predict_split

    dataset = open_dataset(inputs[params.data])
    split = dataset.split(params.split)
    wanted = chosen(dataset.categories, kind=params.classes, group=params.group)
    ids = [category.category_id for category in wanted]
    text = load_table(inputs[params.vocabulary]).rows([category.name for category in wanted])
    detector = load_detector(inputs[params.weights])
    if "segm" in params.overlap and not detector.config.roi.masks:
        raise RecipeError(f"{params.weights} finds boxes without masks", fix="give overlap: [bbox]")
    predictions = predict_split(
        detector,
        split,
        text,
        ids,
        options=params.inference,
        workers=reading_workers(report),
        report=report,
    )
    write_predictions(out / PREDICTIONS, predictions)
    if params.protocol == "parent_aware":
        ids = [category.category_id for category in wanted if category.kind == "part"]
    results = []
    for overlap in params.overlap:
        state = instance_state(
            PROTOCOLS[params.protocol], dataset, params.split, iou_type=overlap, category_ids=ids
        )
        results.append(match_all(state, split, predictions).result())
    content = {result.iou_type: result.as_dict() for result in results}
    (out / RESULTS).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return {name: value for result in results for name, value in result.metrics().items()}
