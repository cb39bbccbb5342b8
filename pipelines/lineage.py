"""What an artifact was made from, down to the raw files, as plain data for people and machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from partseg.errors import StoreError
from partseg.store import Action, Store
from partseg.store.lineage import Node
from pipelines.artifact import RawFile

LISTING = "listing.json"
"""Where a stage that lists a raw folder writes the listing (see :mod:`pipelines.acquire`)."""


def raw_files(store: Store, action: Action) -> tuple[RawFile, ...] | None:
    """The raw files a stage read, with their checksums; None if it read none or did not list them.

    Raises:
        StoreError: the listing is missing or damaged.
    """
    if "raw" not in action.parts:
        return None
    entries = [entry for entry in store.tree(action.tree).entries if entry.path == LISTING]
    if not entries:
        return None
    listed = json.loads(store.blobs.local(entries[0]).read_bytes())
    return tuple(RawFile(path=row["path"], size=row["size"], sha256=row["sha256"]) for row in listed)


def input_paths(parts: Any, path: str = "") -> dict[str, str]:
    """Where the parameters name an input -> its content digest."""
    if isinstance(parts, Mapping):
        if set(parts) == {"#input"}:
            return {path: str(parts["#input"])}
        found: dict[str, str] = {}
        for name, item in parts.items():
            found.update(input_paths(item, f"{path}.{name}" if path else str(name)))
        return found
    if isinstance(parts, list):
        found = {}
        for index, item in enumerate(parts):
            found.update(input_paths(item, f"{path}.{index}"))
        return found
    return {}


def plain_params(action: Action) -> Any:
    """The parameters, with the names of the stages they build on instead of their content."""
    names = {digest: stage for stage, digest in action.inputs.items()}

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            if set(value) == {"#input"}:
                return names.get(value["#input"], str(value["#input"])[:12])
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(action.parts.get("params", {}))


def as_json(store: Store, top: Node) -> list[dict[str, Any]]:
    """Every artifact of a lineage, inputs first: its whole record and the raw files it read."""
    rows = []
    for node in top.walk():
        row: dict[str, Any] = {"stage": node.stage, "digest": node.digest, "key": None}
        if node.action is not None:
            inputs = {other.stage: other.name[1] or None for other in node.inputs}
            row |= {"key": node.action.key, "inputs": inputs, "parts": node.action.parts}
            row["facts"] = node.action.facts
            try:
                raw = raw_files(store, node.action)
            except StoreError as error:
                row["raw_error"], raw = str(error), None
            if raw is not None:
                row["raw_files"] = [
                    {"path": file.path, "size": file.size, "sha256": file.sha256} for file in raw
                ]
        rows.append(row)
    return rows
