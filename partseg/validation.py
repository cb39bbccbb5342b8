"""What pydantic finds wrong, in one line."""

from __future__ import annotations

from pydantic import ValidationError


def faults(error: ValidationError) -> str:
    """Every fault as ``place: what is wrong``, joined by ``; ``; a fault of the whole has no place."""
    return "; ".join(": ".join(filter(None, (_place(f["loc"]), f["msg"]))) for f in error.errors())


def _place(steps: tuple[int | str, ...]) -> str:
    return ".".join(map(str, steps))
