"""All evaluations by name: whose rules, on which predictions, with which numbers first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from partseg.errors import PartsegError
from partseg.evaluation.class_agnostic import ClassAgnosticRecall
from partseg.evaluation.coco import CocoAP
from partseg.evaluation.forms import Form
from partseg.evaluation.instance_truth import IouType
from partseg.evaluation.lvis import FREQUENCIES, LvisAP
from partseg.evaluation.paco import PacoAP
from partseg.evaluation.paco_attributes import read_attributes
from partseg.evaluation.parent_aware import ParentAwareAP
from partseg.evaluation.pascal_part import PascalPartAP, first_annotation
from partseg.evaluation.predictions import PredictionError
from partseg.evaluation.voc import VocAP

if TYPE_CHECKING:
    from partseg.layout import Category, Dataset

Classes = Literal["part", "object", "all"]
InstanceState = CocoAP | VocAP

_INSTANCES: tuple[Form, ...] = ("table", "results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to evaluate.

    Attributes:
        name: as a person writes it.
        forms: of predictions it takes.
        meaning: what it is, in one sentence.
        options: of the family.
    """

    name: str
    forms: tuple[Form, ...]
    meaning: str
    family: str
    options: tuple[tuple[str, Any], ...] = ()


def _instances(name: str, family: str, meaning: str, **options: Any) -> Protocol:
    return Protocol(
        name=name, forms=_INSTANCES, meaning=meaning, family=family, options=tuple(options.items())
    )


PROTOCOLS: Mapping[str, Protocol] = {
    item.name: item
    for item in (
        _instances("coco", "coco", "COCO's average precision, as pycocotools"),
        _instances("lvis", "lvis", "LVIS' average precision, as lvis-api: only what was looked for counts"),
        _instances("voc2007", "voc", "VOC 2007's 11-point average precision of boxes", metric="11point"),
        _instances("voc2012", "voc", "average precision of boxes as from VOC 2010 on: area", metric="area"),
        _instances(
            "voc_detectron2",
            "voc",
            "VOC 2007's average precision as detectron2 and VLPart publish it: scores and boxes rounded",
            metric="11point",
            protocol="detectron2",
        ),
        _instances(
            "pascal_part", "pascal_part", "COCO's average precision of Pascal-Part's parts, base and novel"
        ),
        _instances(
            "vlpart",
            "pascal_part",
            "Pascal-Part as VLPart publishes it: areas of boxes one pixel short, annotation 0 a miss",
            protocol="vlpart",
        ),
        _instances("paco", "paco", "PACO's objects and parts, as LVIS; VLPart publishes this"),
        _instances(
            "paco_usual", "paco", "PACO with attributes, scored by score times probability", protocol="usual"
        ),
        _instances("paco_lb", "paco", "PACO as if no attribute were known: lower bound", protocol="lb"),
        _instances("paco_ub", "paco", "PACO as if every attribute were known: upper bound", protocol="ub"),
        _instances(
            "parent_aware",
            "parent_aware",
            "COCO's average precision of parts on the right object: no number of the original zoos",
        ),
        _instances(
            "class_agnostic",
            "class_agnostic",
            "recall of objects or parts whatever they are called: no number of the original zoos",
        ),
        Protocol(
            name="panopticapi",
            forms=("panoptic",),
            meaning="panoptic quality as panopticapi, the published one",
            family="panoptic",
        ),
        Protocol(
            name="panoptic_parts",
            forms=("parts",),
            meaning="PartPQ as panoptic_parts and TAPPS, the published one: background counts as a part",
            family="parts",
        ),
        Protocol(
            name="mmseg",
            forms=("semantic",),
            meaning="mean IoU at the original size, as mmsegmentation",
            family="semantic",
        ),
        Protocol(
            name="sithu",
            forms=("semantic",),
            meaning="mean IoU with the truth resized to the prediction, as sithu31296's repository",
            family="semantic",
        ),
        Protocol(
            name="correct",
            forms=("table", "results", "panoptic", "parts", "semantic"),
            meaning="the rules without the peculiarities of published tools",
            family="correct",
        ),
    )
}

_OF_FORM: Mapping[Form, str] = {
    "panoptic": "panopticapi",
    "parts": "panoptic_parts",
    "semantic": "mmseg",
}


def default_protocol(form: Form, dataset: Dataset) -> str:
    """The protocol that suits predictions of a form on a dataset."""
    if form not in _INSTANCES:
        return _OF_FORM[form]
    source = str(dataset.manifest.converter.get("name", ""))
    if source.startswith("paco"):
        return "paco"
    if source == "pascal_part":
        return "pascal_part"
    if source == "voc2007":
        return "voc2007"
    if dataset.categories and all(item.frequency in FREQUENCIES for item in dataset.categories):
        return "lvis"
    return "coco"


def named(name: str | None, form: Form, dataset: Dataset) -> Protocol:
    """A protocol by name; ``correct`` and None are the one that suits.

    Raises:
        PartsegError: there is none of this name.
    """
    if name is None or (name == "correct" and form in _INSTANCES):
        name = default_protocol(form, dataset)
    if name not in PROTOCOLS:
        raise PartsegError(f"no protocol {name!r}", fix=f"there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def chosen_classes(categories: Sequence[Category], classes: Classes | None) -> list[int] | None:
    """Ids of the parts, the objects or both; None for those that the protocol chooses.

    Raises:
        PredictionError: there is none of that kind.
    """
    if classes is None:
        return None
    kinds = ("object", "part") if classes == "all" else (classes,)
    ids = [item.category_id for item in categories if item.kind in kinds]
    if not ids:
        raise PredictionError(f"the dataset has no category of the kind {classes}", fix="choose another kind")
    return ids


def instance_state(
    protocol: Protocol,
    dataset: Dataset,
    split: str,
    *,
    iou_type: IouType = "segm",
    category_ids: Sequence[int] | None = None,
    details: bool = False,
    keep_order: bool = False,
) -> InstanceState:
    """An empty state of a protocol for objects and parts.

    Args:
        protocol: one for tables and result files.
        dataset: what is evaluated.
        split: name of the split.
        iou_type: overlap of masks ("segm") or of boxes ("bbox").
        category_ids: what to score; the protocol's own choice by default.
        details: also compare with other categories, for errors by kind; slower. Not for VOC.
        keep_order: settle equal scores by the order of the rows.

    Raises:
        PredictionError: the protocol does not suit the dataset.
    """
    options = dict(protocol.options)
    if protocol.family == "voc":
        if iou_type != "bbox":
            raise PredictionError(f"the protocol {protocol.name} compares boxes", fix="evaluate bbox alone")
        return VocAP(dataset.categories, category_ids=category_ids, **options)
    options |= {
        "iou_type": iou_type,
        "category_ids": category_ids,
        "details": details,
        "keep_order": keep_order,
    }
    match protocol.family:
        case "lvis":
            return LvisAP(dataset.categories, **options)
        case "paco":
            if "protocol" in options:
                options["attributes"] = read_attributes(dataset, split)
            return PacoAP(dataset.categories, **options)
        case "pascal_part":
            state = PascalPartAP(dataset.categories, **options)
            if state.protocol == "vlpart":
                state.first = first_annotation(dataset.split(split), state.settings.category_ids)
            return state
        case "parent_aware":
            return ParentAwareAP(dataset.categories, **options)
        case "class_agnostic":
            return ClassAgnosticRecall(dataset.categories, **options)
        case "coco":
            return CocoAP(dataset.categories, **options)
    raise PredictionError(f"the protocol {protocol.name} is not one for objects and parts")
