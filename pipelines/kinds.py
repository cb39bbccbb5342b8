"""The kinds of stage there are. Adding one is one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from partseg.errors import RecipeError
from pipelines.artifact import StageFunction
from pipelines.params import StageParams

Kinds = Mapping[str, str]

KINDS: Kinds = {
    "acquire": "pipelines.acquire",
    "convert": "pipelines.convert",
    "vocabulary": "pipelines.vocabulary",
    "pretrained": "pipelines.pretrained",
    "train": "pipelines.train",
    "base_index": "pipelines.base_index",
    "parse": "pipelines.parse",
    "evaluate": "pipelines.evaluate",
    "report": "pipelines.report",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of stage: the module's ``VERSION``, ``Params`` and ``run``."""

    name: str
    version: str
    params: type[StageParams]
    run: StageFunction
    module: Any


def load_kind(name: str, kinds: Kinds = KINDS) -> Kind:
    """The kind called ``name``; raises :class:`RecipeError` when there is none."""
    if name not in kinds:
        close = get_close_matches(name, kinds, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(kinds)}"
        raise RecipeError(f"unknown kind of stage: {name}", fix=hint)
    module = import_module(kinds[name])
    return Kind(name=name, version=module.VERSION, params=module.Params, run=module.run, module=module)
