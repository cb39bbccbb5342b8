"""A plan as an outline: every stage once, below the one it mostly comes from.

A graph of a hundred stages has hundreds of edges. Of what a stage needs, one is its place in the outline; of
the others only those are named that no stage above it brings along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.plan import Plan, Row

FOLDED = ("which is blocked", "depends on the output of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One stage, or several that differ in nothing but their names and come from the same one.

    Attributes:
        rows: the stages.
        name: of the stage, or of them all: ``joint_on_{coco, paco}``.
        rules: ``├─`` and its like, before the name.
        reasons: why it is in its state; what merely follows from the stages above is left out.
        beside: the stages it needs that nothing above it in the outline is made from.
    """

    rows: tuple[Row, ...]
    name: str
    rules: str
    reasons: tuple[str, ...]
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the picture: a stage, or several that were folded.

    Attributes:
        name: of the stage, or how all of them begin.
        kind: of all of them, and how many they are.
        needs: names of nodes.
        state: of all of them.
        note: the published cost, or that something is not here.
        rows: the stages.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    state: str
    note: str
    rows: tuple[Row, ...]


def outline(plan: Plan) -> list[Line]:
    """The lines of a plan, from raw data down."""
    needs = {row.stage: row.needs for row in plan.rows}
    above, made_from = _parents(plan), _made_from(needs)
    children: dict[str | None, list[Row]] = {}
    for row in plan.rows:
        children.setdefault(above[row.stage], []).append(row)
    lines: list[Line] = []

    def visit(parent: str | None, rules: str) -> None:
        groups = _folded(children.get(parent, []), children)
        for number, rows in enumerate(groups):
            last = number == len(groups) - 1
            corner, further = ("", "") if parent is None else ("└─ ", "   ") if last else ("├─ ", "│  ")
            lines.append(
                Line(
                    rows=rows,
                    name=group_name([row.stage for row in rows]),
                    rules=rules + corner,
                    reasons=reasons(rows[0]),
                    beside=_beside(rows, parent, needs, made_from),
                )
            )
            visit(rows[0].stage, rules + further)

    visit(None, "")
    return lines


def nodes(plan: Plan) -> list[Node]:
    """The nodes of the plan's picture: folded as in the outline, where the same stages need them."""
    users: dict[str, list[str]] = {row.stage: [] for row in plan.rows}
    for row in plan.rows:
        for need in row.needs:
            users[need].append(row.stage)
    groups: dict[tuple[int, tuple[str, ...]], list[Row]] = {}
    for number, line in enumerate(outline(plan)):
        for row in line.rows:
            groups.setdefault((number, tuple(users[row.stage])), []).append(row)
    short = [_short_name([row.stage for row in rows]) for rows in groups.values()]
    name = {
        row.stage: words if short.count(words) == 1 else group_name([row.stage for row in rows])
        for words, rows in zip(short, groups.values(), strict=True)
        for row in rows
    }
    return [
        Node(
            name=name[rows[0].stage],
            kind=rows[0].kind if len(rows) == 1 else f"{len(rows)} × {rows[0].kind}",
            needs=tuple(dict.fromkeys(name[need] for row in rows for need in row.needs)),
            state=rows[0].state,
            note="not here" if rows[0].missing is not None else rows[0].cost or "",
            rows=tuple(rows),
        )
        for rows in groups.values()
    ]


def reasons(row: Row) -> tuple[str, ...]:
    """Why a stage is in its state, without what merely follows from the stages it needs."""
    if row.missing is not None and row.why[0].startswith("the raw files of"):
        return (f"{row.missing} is not here",)
    return tuple(why for why in row.why if not any(word in why for word in FOLDED))


def group_name(names: Sequence[str]) -> str:
    """``a_{b, c}`` for ``a_b`` and ``a_c``."""
    if len(names) == 1:
        return names[0]
    start = _common(names)
    return f"{start}{{{', '.join(name.removeprefix(start) for name in names)}}}"


def _short_name(names: Sequence[str]) -> str:
    """``a_…`` for ``a_b`` and ``a_c``."""
    return names[0] if len(names) == 1 else f"{_common(names) or names[0]}…"


def _common(names: Sequence[str]) -> str:
    """What all names begin with, up to an underscore."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("_", 0, same) + 1]


def _parents(plan: Plan) -> dict[str, str | None]:
    """The stage that each mostly comes from: one of its own kind before the one that is made last."""
    kinds = {row.stage: row.kind for row in plan.rows}
    depth: dict[str, int] = {}
    above: dict[str, str | None] = {}
    for row in plan.rows:  # in an order in which they can run
        depth[row.stage] = 1 + max((depth[need] for need in row.needs), default=-1)
        ranked = sorted(row.needs, key=lambda need, own=row.kind: (kinds[need] != own, -depth[need]))  # type: ignore[misc]
        above[row.stage] = ranked[0] if ranked else None
    return above


def _made_from(needs: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Stage -> itself and everything it is made from."""
    found: dict[str, frozenset[str]] = {}
    for stage, others in needs.items():
        found[stage] = frozenset({stage}).union(*(found[other] for other in others))
    return found


def _folded(rows: Sequence[Row], children: Mapping[str | None, list[Row]]) -> list[tuple[Row, ...]]:
    """Stages of one parent, those together that nothing is made from and that are alike."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        alike = (row.kind, row.state, row.cost, row.forced, reasons(row))
        groups.setdefault(row.stage if row.stage in children else alike, []).append(row)
    return [tuple(group) for group in groups.values()]


def _beside(
    rows: Sequence[Row],
    parent: str | None,
    needs: Mapping[str, Sequence[str]],
    made_from: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for row in rows:
        for need in row.needs:
            others = [other for other in needs[row.stage] if other != need]
            if need != parent and not any(need in made_from[other] for other in others):
                found[need] = None
    return tuple(found)
