"""Predictions in files against a split of a dataset, by the name of a protocol.

>>> for item in assess(dataset, "val", Path("predictions.parquet"), protocols=["coco", "parent_aware"]):
...     print(item.name, item.metrics())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from partseg.errors import PartsegError
from partseg.evaluation.average_precision import RECALLS
from partseg.evaluation.detection_records import DetectionTable
from partseg.evaluation.forms import Found, find, require
from partseg.evaluation.instance_run import run
from partseg.evaluation.instance_truth import Floats, IouType
from partseg.evaluation.lvis import FREQUENCIES, LvisAP
from partseg.evaluation.paco import PacoAP
from partseg.evaluation.panoptic_files import PanopticFolder, PartFolder, SemanticFolder
from partseg.evaluation.panoptic_run import evaluate_panoptic, evaluate_parts, evaluate_semantic
from partseg.evaluation.panoptic_truth import PanopticTruth, PartTruth, SemanticTruth
from partseg.evaluation.pascal_part import SEEN, PascalPartAP
from partseg.evaluation.predictions import Predictions, read_predictions
from partseg.evaluation.protocols import Classes, Protocol, chosen_classes, instance_state, named
from partseg.evaluation.resampling import sampled_average_precision
from partseg.evaluation.result_json import Ids, read_results
from partseg.evaluation.voc import VocAP
from partseg.layout import Dataset
from partseg.layout.export.semantic import Ids as SemanticIds
from partseg.layout.export.semantic import Kind as SemanticKind
from partseg.progress import Progress

AnyIds = Ids | Literal["train"]
_VALUES: Mapping[str, SemanticIds] = {"train": "train", "layout": "category", "source": "source"}
_PAINTED: Mapping[Classes, SemanticKind] = {"object": "object", "part": "part", "all": "both"}

ELEVEN = np.arange(0.0, 1.1, 0.1)
"""Where VOC 2007 reads precision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Numbers of B samples of the images; nan where a sample does not define them.

    Attributes:
        metrics: float64 [B] by the names of :meth:`Assessed.metrics`.
        classes: AP, float64 [B], by category id; empty where samples of single classes are not computed.
    """

    metrics: Mapping[str, Floats]
    classes: Mapping[int, Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessed:
    """One evaluation: a protocol, and for objects and parts what overlaps were measured on.

    Attributes:
        name: ``segm``, ``bbox``, ``panoptic``, ``parts`` or ``semantic``; behind the protocol's where that is
            not the first.
        prefix: of the names of its numbers, empty for the first protocol.
        state: filled.
    """

    name: str
    prefix: str
    protocol: Protocol
    state: Any

    @cached_property
    def table(self) -> DetectionTable | None:
        """Records of objects and parts; None for the other families."""
        table: DetectionTable | None = self.state.table() if self.is_instances else None
        return table

    @property
    def is_instances(self) -> bool:
        """Whether objects or parts were matched."""
        return hasattr(self.state, "records")

    @cached_property
    def result(self) -> Any:
        """The family's result."""
        return self.state.result(self.table) if self.is_instances else self.state.result()

    def metrics(self) -> dict[str, float]:
        """The headline numbers under flat names."""
        return {f"{self.prefix}{name}": value for name, value in self.result.metrics().items()}

    @property
    def image_ids(self) -> tuple[Any, ...]:
        """Evaluated images, in the order in which samples weigh them."""
        if self.table is not None:
            return tuple(self.table.image_ids.tolist())
        return tuple(getattr(self.state, "counts", self.state).image_ids)

    @property
    def can_resample(self) -> bool:
        """Whether :meth:`resampled` gives anything."""
        return self.protocol.family != "class_agnostic"

    def resampled(self, weights: ArrayLike) -> Samples:
        """The numbers of samples of the images.

        Args:
            weights: int [B, I], how often each image of ``image_ids`` is in each sample.
        """
        if not self.can_resample:
            return Samples(metrics={}, classes={})
        if self.table is None:
            found = self.state.resampled(weights)
            return Samples(metrics={f"{self.prefix}{k}": v for k, v in found.items()}, classes={})
        state = self.state
        ids = state.settings.category_ids
        recalls = RECALLS if not isinstance(state, VocAP) else ELEVEN if state.metric == "11point" else None
        values = sampled_average_precision(self.table, ids, weights, recalls=recalls)
        if isinstance(state, VocAP) and state.protocol == "detectron2" and state.metric == "11point":
            values = np.nan_to_num(values)
        classes = {"AP": values.mean(axis=0), "AP50": values[0], "AP75": values[5]}
        found = _means(state, self.result, classes)
        kind = state.settings.iou_type
        return Samples(
            metrics={f"{self.prefix}{kind}/{name}": value for name, value in found.items()},
            classes=dict(zip(ids, classes["AP"], strict=True)),
        )


def assess(
    dataset: Dataset,
    split: str,
    path: Path,
    *,
    protocols: Sequence[str] = (),
    classes: Classes | None = None,
    iou_types: Sequence[IouType] = (),
    ids: AnyIds | None = None,
    details: bool = False,
    workers: int = 0,
    report: Progress | None = None,
) -> list[Assessed]:
    """Evaluate predictions in files.

    Args:
        dataset: with ground truth.
        split: name of the split.
        path: a file or a folder, see :mod:`partseg.evaluation.forms`.
        protocols: names; the first is the main one, and by default the one that suits.
        classes: score parts, objects or all; by default what the protocol chooses, in maps the objects.
        iou_types: masks, boxes or both; by default whatever both sides have.
        ids: whose ids a results JSON has; of maps of classes, what their values are (``train``: 0, 1, ...).
        details: of objects and parts, also compare with other categories, for errors by kind.
        workers: further processes.
        report: told how far it is.

    Raises:
        PartsegError: no such protocol, or it does not suit these predictions or this dataset.
        PredictionError: the predictions cannot be read or do not belong to the split.
    """
    found = find(path, dataset, split)
    chosen = [named(name, found.form, dataset) for name in (protocols or (None,))]
    for item in chosen:
        require(found, item.forms, item.name)
    if found.form not in ("table", "results"):
        return [
            _maps(dataset, split, found, item, place, classes, ids, workers, report)
            for place, item in enumerate(chosen)
        ]
    predictions = read(found, dataset, split, ids)
    wanted = chosen_classes(dataset.categories, classes)
    done = []
    for place, item in enumerate(chosen):
        for kind in iou_types or _measurable(dataset, split, predictions, item):
            state = instance_state(
                item,
                dataset,
                split,
                iou_type=kind,
                category_ids=wanted,
                details=details and not place and item.family != "voc",
            )
            run(state, dataset.split(split), predictions, workers=workers, report=report)
            prefix = f"{item.name}/" if place else ""
            done.append(Assessed(name=f"{prefix}{kind}", prefix=prefix, protocol=item, state=state))
    return done


def read(found: Found, dataset: Dataset, split: str, ids: AnyIds | None = None) -> Predictions:
    """The predictions of a table or a results JSON, with the layout's ids.

    Raises:
        PartsegError: they cannot be read, or have no such ids.
    """
    if found.form == "table":
        return read_predictions(found.path)
    if ids == "train":
        raise PartsegError("objects and parts have no training ids", fix="name the ids source or layout")
    return read_results(found.path, dataset, split, ids)


def _measurable(dataset: Dataset, split: str, predictions: Predictions, protocol: Protocol) -> list[IouType]:
    """Boxes, and masks where predictions and truth have them."""
    if protocol.family == "voc" or None in predictions.rles:
        return ["bbox"]
    masks = dataset.split(split).batch("annotations")["rle"]
    return ["bbox"] if masks.null_count else ["segm", "bbox"]


def _maps(
    dataset: Dataset,
    split: str,
    found: Found,
    protocol: Protocol,
    place: int,
    classes: Classes | None,
    ids: AnyIds | None,
    workers: int,
    report: Progress | None,
) -> Assessed:
    truth, files = open_maps(dataset, split, found, classes, ids)
    name = "mmseg" if found.form == "semantic" and protocol.name == "correct" else protocol.name
    evaluate = {"panoptic": evaluate_panoptic, "parts": evaluate_parts, "semantic": evaluate_semantic}
    run_maps: Any = evaluate[found.form]
    state = run_maps(truth, files, protocol=name, workers=workers, report=report)
    prefix = f"{protocol.name}/" if place else ""
    return Assessed(name=f"{prefix}{found.form}", prefix=prefix, protocol=protocol, state=state)


def open_maps(
    dataset: Dataset,
    split: str,
    found: Found,
    classes: Classes | None = None,
    ids: AnyIds | None = None,
) -> tuple[Any, Any]:
    """Truth and predictions of segments or classes of pixels.

    Args:
        dataset: with ground truth.
        split: name of the split.
        found: predictions in the form of maps.
        classes: of semantic maps; objects by default.
        ids: what the values of semantic maps are; ``train`` by default.

    Raises:
        PartsegError: the dataset has no such truth, or the predictions cannot be read.
    """
    if found.form == "panoptic":
        panoptic = PanopticTruth(dataset, split)
        return panoptic, PanopticFolder(found.path, found.folder, category_of=panoptic.category_of())
    if found.form == "parts":
        return PartTruth(dataset, split), PartFolder(found.path)
    if ids == "vlpart":
        raise PartsegError("VLPart has no maps of classes", fix="name the ids train, layout or source")
    values, painted = _VALUES[ids or "train"], _PAINTED[classes or "object"]
    return SemanticTruth(dataset, split, ids=values, kind=painted), SemanticFolder(found.path)


def _means(state: Any, result: Any, classes: Mapping[str, Floats]) -> dict[str, Floats]:
    """Means over classes as the family's result has them, of values [K, B]."""
    ids = list(state.settings.category_ids)
    place = {category: row for row, category in enumerate(ids)}
    names = state.groups if getattr(state, "groups", None) is not None else _own_groups(result)
    found = {name: _mean(values) for name, values in classes.items()}
    for group, members in names.items():
        rows = [place[category] for category in members]
        found |= {f"{group}/{name}": _mean(classes[name][rows]) for name in ("AP", "AP50")}
    if isinstance(state, PascalPartAP):
        for group, short in SEEN.items():
            for name in ("AP", "AP50"):
                if f"{group}/{name}" in found:
                    found[f"{name}-{short}"] = found[f"{group}/{name}"]
    if isinstance(state, LvisAP):
        for letter in FREQUENCIES:
            rows = [place[category] for category in ids if state.frequencies[category] == letter]
            found[f"AP{letter}"] = _mean(classes["AP"][rows])
    if isinstance(state, PacoAP):
        objects = [place[category] for category in ids if category not in state.owners]
        parts: dict[str, list[int]] = {}
        for category in ids:
            if category in state.owners:
                parts.setdefault(state.categories[category].name.rpartition(":")[2], []).append(
                    place[category]
                )
        for name, ending in (("AP", ""), ("AP50", "50")):
            found[f"obj-AP{ending}"] = _mean(classes[name][objects])
            means = [_mean(classes[name][rows]) for rows in parts.values()]
            if means:
                found[f"obj-part-AP{ending}"] = _mean(np.stack(means))
    return found


def _own_groups(result: Any) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row in result.classes:
        if row.group is not None:
            groups.setdefault(row.group, []).append(row.category_id)
    return groups


def _mean(values: Floats) -> Floats:
    """Mean over K of what is not nan, [B]; nan where nothing is left."""
    known = ~np.isnan(values)
    number = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
