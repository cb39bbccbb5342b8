"""What pydantic found wrong, in the words of whoever wrote the file."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def suggestion(name: str, known: Sequence[str]) -> str | None:
    """Did you mean ...? Or what there is, if nothing is close; None if there is nothing."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are: {', '.join(known)}" if known else None


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[str, str | None]:
    """What is wrong and how to mend it; an unknown name goes before everything else."""
    problems = error.errors(include_url=False, include_context=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _names(_models_at(model, problem["loc"][:-1]))
        return f"unknown name {place}", suggestion(str(problem["loc"][-1]), known)
    if problem["type"] == "missing":
        return f"{place} is missing", None
    message = problem["msg"].removeprefix("Value error, ")
    given = repr(problem["input"])
    return f"{place or 'value'}: {message}", f"it says {given}" if len(given) <= 60 else None


def _models_at(model: type[BaseModel], steps: Iterable[int | str]) -> list[type[BaseModel]]:
    """The models that may stand at a place; indices and union tags are passed over."""
    found = [model]
    for step in steps:
        inner = [
            deeper
            for current in found
            for name, field in current.model_fields.items()
            if step in (name, field.alias)
            for deeper in _models_in(field.annotation)
        ]
        found = inner or found
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _names(models: Iterable[type[BaseModel]]) -> list[str]:
    return [field.alias or name for model in models for name, field in model.model_fields.items()]
