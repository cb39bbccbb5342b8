"""Where the nodes of a graph go: one column per depth, few crossings, long lines in lanes of their own.

The usual layered drawing (Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
Structures", 1981), with one difference: all long lines from the same node share their lanes, so that a node
that fifty others need is one line that branches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 12
LANE = 0.3
"""Rows that a passing line keeps free."""

Needs = Mapping[str, Sequence[str]]
_Point = tuple[str, int]  # a node in its own column, or its lane in a later one


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Column and (possibly fractional) row."""

    column: int
    row: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The places of nodes, and of the lanes in which lines pass other columns: (from, column) -> row."""

    places: Mapping[str, Place]
    lanes: Mapping[_Point, float]


def layers(needs: Needs) -> dict[str, int]:
    """The depth of every node: one more than the deepest one it needs.

    Args:
        needs: node -> the nodes it needs; names that are not keys are ignored.
    """
    depth: dict[str, int] = {}

    def visit(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((visit(other) for other in needs[name] if other in needs), default=-1)
        return depth[name]

    for name in needs:
        visit(name)
    return depth


def implied(need: str, name: str, needs: Needs) -> bool:
    """Whether ``name`` also depends on ``need`` by way of another node."""
    todo, seen = [other for other in needs[name] if other != need], set[str]()
    while todo:
        other = todo.pop()
        if need in needs.get(other, ()):
            return True
        if other not in seen:
            seen.add(other)
            todo += needs.get(other, ())
    return False


def arrange(needs: Needs) -> Layout:
    """A place for every node; a node stands as near as can be to the first one that needs it."""
    columns = _columns(needs)
    members: list[list[_Point]] = [[] for _ in range(1 + max(columns.values(), default=-1))]
    links: list[tuple[_Point, _Point]] = []
    for name in needs:
        users = [other for other in needs if name in needs[other]]
        last = max((columns[user] for user in users), default=columns[name])
        for column in range(columns[name], max(last, columns[name] + 1)):
            members[column].append((name, column))
            if column > columns[name]:
                links.append(((name, column - 1), (name, column)))
        links += [((name, columns[user] - 1), (user, columns[user])) for user in users]
    before: dict[_Point, list[_Point]] = {point: [] for column in members for point in column}
    after: dict[_Point, list[_Point]] = {point: [] for column in members for point in column}
    for start, end in links:
        after[start].append(end)
        before[end].append(start)
    for sweep in range(SWEEPS):
        _order(members, before if sweep % 2 == 0 else after, backwards=sweep % 2 == 1)
    row = _rows(members, before, after, columns)
    return Layout(
        places={name: Place(column=columns[name], row=row[name, columns[name]]) for name in needs},
        lanes={point: row[point] for point in row if point[1] != columns[point[0]]},
    )


def _columns(needs: Needs) -> dict[str, int]:
    """The depth, but a node that could come later stands before the first one that needs it."""
    depth = layers(needs)
    users = {name: [other for other in needs if name in needs[other]] for name in needs}
    for name in sorted(needs, key=lambda name: -depth[name]):
        if users[name]:
            depth[name] = min(depth[user] for user in users[name]) - 1
    return depth


def _order(
    members: list[list[_Point]], neighbours: Mapping[_Point, list[_Point]], *, backwards: bool
) -> None:
    """Sort each column by the mean position of the neighbours in the columns before (or after) it."""
    at = {point: index / len(column) for column in members for index, point in enumerate(column)}
    for column in reversed(members) if backwards else members:
        near = {point: [at[other] for other in neighbours[point]] for point in column}
        column.sort(key=lambda point: sum(near[point]) / len(near[point]) if near[point] else at[point])
        at.update({point: index / len(column) for index, point in enumerate(column)})


def _rows(
    members: list[list[_Point]],
    before: Mapping[_Point, list[_Point]],
    after: Mapping[_Point, list[_Point]],
    columns: Mapping[str, int],
) -> dict[_Point, float]:
    """Rows near those of the neighbours, in the order given and without overlaps."""
    height = {point: 1.0 if columns[point[0]] == point[1] else LANE for column in members for point in column}
    row: dict[_Point, float] = {}
    for column in members:
        _settle(column, dict.fromkeys(column, 0.0), height, row)
    for sweep in range(2 * SWEEPS):
        for column in members if sweep % 2 == 0 else reversed(members):
            wanted = {}
            for point in column:
                near = [row[other] for other in (*before[point], *after[point])]
                wanted[point] = sum(near) / len(near) if near else row[point]
            _settle(column, wanted, height, row)
    top = min(row.values(), default=0.0)
    return {point: value - top for point, value in row.items()}


def _settle(
    column: Sequence[_Point],
    wanted: Mapping[_Point, float],
    height: Mapping[_Point, float],
    row: dict[_Point, float],
) -> None:
    """Put a column's points as near to ``wanted`` as they can be without overlapping.

    Less the room that those above take, the rows have to rise: least squares, by pooling those that do not.
    """
    offset, offsets = 0.0, []
    for index, point in enumerate(column):
        offset += (height[column[index - 1]] + height[point]) / 2 if index else 0.0
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # mean and number
    for point, gap in zip(column, offsets, strict=True):
        mean, number = wanted[point] - gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, number = (mean * number + other * count) / (number + count), number + count
        pools.append((mean, number))
    means = [mean for mean, number in pools for _ in range(number)]
    for point, mean, gap in zip(column, means, offsets, strict=True):
        row[point] = mean + gap
