"""The raw formats that partseg reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from partseg.datasets.source import SourceModule
from partseg.errors import SourceError
from partseg.validation import faults

SOURCES = (
    "partimagenet_supercat",
    "partimagenet",
    "paco_lvis_v1",
    "paco_ego4d_v1",
    "lvis_v1",
    "coco_json",
    "coco",
    "cityscapes_pp",
    "coco_panoptic",
    "imagenet_folder",
    "imagenet_subset",
    "pascal_part",
    "pascal_pp",
    "voc2007",
)
"""Names of the sources, which are the names of their modules in this package."""


@cache
def source_module(source: str) -> SourceModule:
    """The module that reads ``source``.

    Raises:
        SourceError: there is none.
    """
    if source not in SOURCES:
        raise SourceError(f"unknown source {source!r}", fix=f"there are: {', '.join(SOURCES)}")
    return cast(SourceModule, import_module(f"partseg.datasets.{source}"))


def source_options(source: str, options: Mapping[str, Any]) -> BaseModel:
    """The options of ``source``, checked.

    Raises:
        SourceError: an option is unknown or has the wrong type.
    """
    model = source_module(source).Options
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise SourceError(f"options of {source}: {faults(error)}", fix=f"known options: {known}") from error
