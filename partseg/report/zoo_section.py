"""Published tables on the page of a run: each number beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KINDS = {"segm": "masks", "bbox": "boxes"}


def zoo_section(
    rows: Sequence[Mapping[str, Any]], *, tolerance: str, profile: str | None
) -> dict[str, Any] | None:
    """What the template needs; None without rows.

    Args:
        rows: as :meth:`pipelines.zoo_state.RowState.as_json` gives them, in the published order.
        tolerance: what the colours mean, in words.
        profile: of the run; all but the published schedule make numbers that cannot be compared.
    """
    if not rows:
        return None
    tables = dict.fromkeys(row["table"] for row in rows)
    return {
        "tables": [_table([row for row in rows if row["table"] == name]) for name in tables],
        "tolerance": tolerance,
        "profile": profile,
        "done": sum(row["state"] == "done" for row in rows),
        "rows": len(rows),
        "unsure": any(number["maybe"] for row in rows for number in row["numbers"]),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One column per measure, measures of a dataset together; rows of other datasets have gaps."""
    columns = list(dict.fromkeys((n["dataset"], n["measure"]) for row in rows for n in row["numbers"]))
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for dataset, measure in columns:
        groups.setdefault((dataset, measure.partition("/")[0]), []).append((dataset, measure))
    ordered = [column for members in groups.values() for column in members]
    firsts = {members[0] for members in groups.values()}
    lines = []
    for row in rows:
        numbers = {(n["dataset"], n["measure"]): n for n in row["numbers"]}
        cells = [_cell(numbers.get(column)) | {"first": column in firsts} for column in ordered]
        there = sum(stage["in_store"] for stage in row["stages"])
        lines.append(
            {
                "label": row["label"],
                "id": row["row"],
                "stage": row["stage"],
                "recipe": row["recipe"],
                "state": "not run" if row["state"] == "nothing" else row["state"],
                "about": f"{there} of {len(row['stages'])} stages are in the store",
                "cells": cells,
            }
        )
    return {
        "title": rows[0]["title"],
        "note": rows[0]["note"],
        "groups": [
            {"name": dataset, "kind": KINDS.get(kind, kind), "width": len(members)}
            for (dataset, kind), members in groups.items()
        ],
        "measures": [{"name": short(measure), "first": (d, measure) in firsts} for d, measure in ordered],
        "rows": lines,
    }


def _cell(number: Mapping[str, Any] | None) -> dict[str, Any]:
    if number is None:
        return {"published": None, "reproduced": None, "delta": None, "verdict": None, "maybe": []}
    maybe = [
        {"name": _other(name, number["measure"]), "value": value}
        for name, value in number["maybe"].items()
        if value is not None
    ]
    return {
        **{name: number[name] for name in ("published", "reproduced", "delta", "verdict")},
        "maybe": maybe,
    }


def short(measure: str) -> str:
    """``AP``, ``novel AP50``, ``dog:head`` of ``segm/AP``, ``segm/novel/AP50``, ``segm/AP50/dog:head``."""
    steps = measure.split("/")[1:]
    return steps[-1] if ":" in steps[-1] else " ".join(steps)


def _other(measure: str, than: str) -> str:
    """What tells a measure from the one it stands below: ``masks``, or ``obj-AP``."""
    kind = measure.partition("/")[0]
    return KINDS.get(kind, kind) if short(measure) == short(than) else short(measure)
