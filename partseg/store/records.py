"""The commit of an artifact: what was made from what. A record carries a checksum of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from partseg.store.trees import canonical_json

FORMAT = 1
CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The commit of one artifact: what was made from what, and how it went.

    Attributes:
        key: sha256 of ``parts``.
        tree: content digest of the artifact.
        parts: what the key was made of, unhashed, so that two keys can be compared.
        facts: everything that is not content: stage, recipe, inputs, metrics, seconds, provenance.
    """

    key: str
    tree: str
    parts: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def inputs(self) -> dict[str, str]:
        """Stage name -> content digest of what it was made from."""
        return {str(name): str(digest) for name, digest in self.facts.get("inputs", {}).items() if digest}

    @property
    def name(self) -> str:
        """The recipe and stage that built it, as far as it is known."""
        return "/".join(str(self.facts[part]) for part in ("recipe", "stage") if self.facts.get(part))

    @property
    def finished(self) -> str:
        """When it was built: UTC, ISO 8601; empty if the record does not say."""
        provenance: Mapping[str, Any] = self.facts.get("provenance", {})
        return str(provenance.get("finished", ""))


def encode(action: Action) -> bytes:
    """The record as it is stored."""
    content = asdict(action)
    return canonical_json({**content, CHECKSUM: _checksum(content)})


def decode(data: bytes, key: str) -> Action:
    """The record stored under ``key``.

    Raises:
        ValueError: it is not what was stored. Records from before there was a checksum are believed.
    """
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("it is no record")
    checksum = content.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(content):
        raise ValueError("it is not what was written")
    try:
        action = Action(**content)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if action.key != key:
        raise ValueError(f"it is the record of {action.key[:12]}")
    return action


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
