"""The stage graph as inline SVG: one column per depth, states as colours, times beside the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

WIDTH, HEIGHT = 124, 50  # of a node, in SVG units
GAP_X, GAP_Y = 26, 16
MARGIN = 6


class StageLike(Protocol):
    """What is drawn of a stage."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def needs(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Column and (possibly fractional) row of a stage."""

    column: int
    row: float


def layers(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The depth of every stage: one more than the deepest stage it needs.

    Args:
        needs: stage -> the stages it needs; names that are not keys are ignored.
    """
    depth: dict[str, int] = {}

    def visit(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((visit(other) for other in needs[name] if other in needs), default=-1)
        return depth[name]

    for name in needs:
        visit(name)
    return depth


def arrange(needs: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """A place for every stage, with few crossing lines.

    A source moves next to its first user, and each column is ordered a few times by the mean row
    of its neighbours.
    """
    depth = layers(needs)
    users = {name: [other for other in needs if name in needs[other]] for name in needs}
    for name in sorted(needs, key=lambda n: -depth[n]):
        if users[name]:
            depth[name] = min(depth[user] for user in users[name]) - 1
    columns = [[n for n in needs if depth[n] == d] for d in range(max(depth.values(), default=-1) + 1)]
    row = {name: float(i) for column in columns for i, name in enumerate(column)}
    for sweep in range(8):
        neighbours = needs if sweep % 2 == 0 else users
        for column in columns if sweep % 2 == 0 else reversed(columns):
            near = {n: [row[o] for o in neighbours[n] if o in row] for n in column}
            column.sort(key=lambda n: sum(near[n]) / len(near[n]) if near[n] else row[n])
            row.update({name: float(i) for i, name in enumerate(column)})
    tallest = max((len(column) for column in columns), default=0)
    return {
        name: Place(column=x, row=i + (tallest - len(column)) / 2)
        for x, column in enumerate(columns)
        for i, name in enumerate(column)
    }


def graph_svg(stages: Sequence[StageLike]) -> str:
    """Inline SVG of the graph; colours come from the page's style sheet.

    Args:
        stages: in any order; a stage that is needed but not listed is left out.
    """
    if not stages:
        return ""
    needs = {stage.name: stage.needs for stage in stages}
    places = arrange(needs)
    width = (1 + max(p.column for p in places.values())) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = (1 + max(p.row for p in places.values())) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    edges = [
        _edge(places[need], places[stage.name], implied(need, stage.name, needs))
        for stage in stages
        for need in stage.needs
        if need in places
    ]
    nodes = [_node(stage, places[stage.name]) for stage in stages]
    return (
        f'<svg class="graph" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" '
        f'role="img" aria-label="Graph of {len(stages)} stages">{"".join(edges)}{"".join(nodes)}</svg>'
    )


def _corner(place: Place) -> tuple[float, float]:
    return MARGIN + place.column * (WIDTH + GAP_X), MARGIN + place.row * (HEIGHT + GAP_Y)


def implied(need: str, name: str, needs: Mapping[str, Sequence[str]]) -> bool:
    """Whether ``name`` also depends on ``need`` by way of another stage."""
    todo, seen = [other for other in needs[name] if other != need], set[str]()
    while todo:
        other = todo.pop()
        if need in needs.get(other, ()):
            return True
        if other not in seen:
            seen.add(other)
            todo += needs.get(other, ())
    return False


def _edge(start: Place, end: Place, faint: bool) -> str:
    (x0, y0), (x1, y1) = _corner(start), _corner(end)
    x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT / 2, y1 + HEIGHT / 2
    bend = max(16.0, (x1 - x0) / 2)
    kind = "edge faint" if faint else "edge"
    return (
        f'<path class="{kind}" d="M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"/>'
    )


def _node(stage: StageLike, place: Place) -> str:
    x, y = _corner(place)
    time = "" if stage.seconds is None else _short_time(stage.seconds)
    name = stage.name if len(stage.name) <= 15 else stage.name[:14] + "…"
    return (
        f'<g class="node state-{escape(stage.state)}" transform="translate({x:g} {y:g})">'
        f"<title>{escape(stage.name)} ({escape(stage.kind)}): {escape(stage.state)} {time}</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="9"/><circle cx="14" cy="18" r="4"/>'
        f'<text class="name" x="24" y="22">{escape(name)}</text>'
        f'<text class="kind" x="24" y="39">{escape(stage.kind)}</text>'
        f'<text class="time" x="{WIDTH - 10}" y="39">{time}</text></g>'
    )


def _short_time(seconds: float) -> str:
    return seconds_text(seconds) if seconds < 60 else f"{seconds / 60:.1f} min"


def seconds_text(seconds: float) -> str:
    """A duration for people: "0.4 s", "12 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
