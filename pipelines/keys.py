"""The key of a stage: a digest of everything that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from partseg.store.trees import canonical_json
from pipelines.kinds import Kind
from pipelines.params import StageParams, keyed

Parts = Mapping[str, Any]
ABSENT = object()


def key_parts(
    kind: Kind, params: StageParams, digests: Mapping[str, str], listing: str | None = None
) -> dict[str, Any]:
    """What a key is made of, as plain data.

    Args:
        kind: its name and version enter.
        params: enter whole, defaults filled in.
        digests: content digest of every stage that ``params`` names; they stand for the names.
        listing: digest of the listing of the local raw folder, for a stage that reads one.
    """
    parts = {"kind": kind.name, "version": kind.version, "params": _with_digests(keyed(params), digests)}
    return parts if listing is None else {**parts, "raw": listing}


def key_of(parts: Parts) -> str:
    """sha256 of the canonical JSON of ``parts``."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def same_but_inputs(old: Parts, new: Parts) -> bool:
    """Whether two keys differ in nothing but the content of what the stages were given."""
    a, b = ({**parts, "raw": None} for parts in (old, new))
    return bool(_without_inputs(a) == _without_inputs(b))


def differences(old: Parts, new: Parts, names: Mapping[str, str]) -> list[str]:
    """Why ``new`` is another key than ``old``, in words.

    Args:
        old: parts of the earlier key.
        new: parts of the present key.
        names: content digest -> stage name, for the inputs of ``new``.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    reasons = []
    for path in dict.fromkeys([*after, *before]):
        a, b = before.get(path, ABSENT), after.get(path, ABSENT)
        if a == b:
            continue
        if path == "raw":
            reasons.append("the raw files changed")
        elif path.endswith("#input"):
            reasons.append(f"input {names.get(str(b), path.removesuffix('#input'))} changed")
        else:
            reasons.append(f"{path}: {_shown(a)} -> {_shown(b)}")
    return list(dict.fromkeys(reasons))


def _with_digests(value: Any, digests: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"ref"} and value["ref"] in digests:
            return {"#input": digests[value["ref"]]}
        return {name: _with_digests(item, digests) for name, item in value.items()}
    return [_with_digests(item, digests) for item in value] if isinstance(value, list) else value


def _without_inputs(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: None if name == "#input" else _without_inputs(item) for name, item in value.items()}
    return [_without_inputs(item) for item in value] if isinstance(value, list) else value


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value with its dotted path; an input's path ends in ``#input``."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            joined = path + name if name == "#input" else f"{path}.{name}" if path else str(name)
            yield from _leaves(item, joined)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{index}")
    else:
        yield path, value


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = canonical_json(value).decode() if not isinstance(value, str) else value
    return text if len(text) <= 40 else f"{text[:37]}..."
