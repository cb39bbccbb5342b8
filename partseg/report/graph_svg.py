"""The stage graph as SVG: one column per depth, states as colours, times or costs beside the names."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from partseg.report.graph_layout import Layout, Place, arrange, implied
from partseg.report.html import templates

HEIGHT = 50  # of a node, in SVG units
NARROWEST, WIDEST = 124, 232
LETTER = 7.7
"""Width of a letter of a name: 12 units, half bold."""
GAP_X, GAP_Y = 34, 16
MARGIN = 8
LARGE = 25
"""Nodes of a graph that is drawn without the lines that follow from others."""


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
    def note(self) -> str: ...  # noqa: D102


def graph_svg(stages: Sequence[StageLike], *, alone: bool = False) -> str:
    """SVG of the graph.

    Args:
        stages: in any order; a stage that is needed but not listed is left out.
        alone: with its own colours, as a file; otherwise they come from the page's style sheet.
    """
    if not stages:
        return ""
    listed = {stage.name for stage in stages}
    all_needs = {stage.name: [need for need in stage.needs if need in listed] for stage in stages}
    faint = {
        (need, name)
        for name, needs in all_needs.items()
        for need in needs
        if len(needs) > 1 and implied(need, name, all_needs)
    }
    if len(stages) >= LARGE:
        shown = {name: [n for n in needs if (n, name) not in faint] for name, needs in all_needs.items()}
    else:
        shown = all_needs
    layout = arrange(shown)
    box = _width(stages)
    width = (1 + max(p.column for p in layout.places.values())) * (box + GAP_X) - GAP_X + 2 * MARGIN
    lowest = max([*(p.row for p in layout.places.values()), *layout.lanes.values()])
    height = (1 + lowest) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    lines = [_lines(stage.name, shown, layout, box, faint) for stage in stages]
    nodes = [_node(stage, layout.places[stage.name], box) for stage in stages]
    style = templates().get_template("graph_alone.css").render() if alone else ""
    own = 'xmlns="http://www.w3.org/2000/svg" ' if alone else ""
    size = f'width="{width:g}" height="{height:g}"' if alone else f'style="max-width:{width:g}px"'
    return (
        f'<svg {own}class="graph" viewBox="0 0 {width:g} {height:g}" {size} role="img" '
        f'aria-label="Graph of {len(stages)} stages">'
        + (f"<style>{style}</style>" if style else "")
        + f"{''.join(lines)}{''.join(nodes)}</svg>"
    )


def _width(stages: Sequence[StageLike]) -> float:
    longest = max(len(stage.name) for stage in stages)
    return min(WIDEST, max(NARROWEST, longest * LETTER + 36))


def _corner(column: int, row: float, box: float) -> tuple[float, float]:
    return MARGIN + column * (box + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)


def _lines(
    name: str, needs: dict[str, list[str]], layout: Layout, box: float, faint: set[tuple[str, str]]
) -> str:
    """The lines from one node to all that need it: they bend in the gaps and are straight past columns."""
    start = layout.places[name]
    drawn: dict[tuple[float, ...], bool] = {}  # a piece, and whether it is faint for everybody
    for user, others in needs.items():
        if name not in others:
            continue
        end, row = layout.places[user], start.row
        for column in range(start.column, end.column):
            target = end.row if column == end.column - 1 else layout.lanes[name, column + 1]
            piece = (float(column), row, target, float(column == end.column - 1))
            drawn[piece] = drawn.get(piece, True) and (name, user) in faint
            row = target
    paths: dict[bool, list[str]] = {False: [], True: []}
    for (at, row, target, last), weak in drawn.items():
        x0, y0 = _corner(int(at), row, box)
        x0, y0, y1 = x0 + box, y0 + HEIGHT / 2, _corner(0, target, box)[1] + HEIGHT / 2
        x1, middle = x0 + GAP_X, x0 + GAP_X / 2
        on = "" if last else f"H{x1 + box:g}"
        paths[weak].append(f"M{x0:g} {y0:.1f}C{middle:g} {y0:.1f} {middle:g} {y1:.1f} {x1:g} {y1:.1f}{on}")
    return "".join(
        f'<path class="edge{" faint" if weak else ""}" d="{"".join(pieces)}"/>'
        for weak, pieces in paths.items()
        if pieces
    )


def _node(stage: StageLike, place: Place, box: float) -> str:
    x, y = _corner(place.column, place.row, box)
    title = f"{stage.name} ({stage.kind}): {stage.state} {stage.note}".strip()
    return (
        f'<g class="node state-{escape(stage.state)}" transform="translate({x:g} {y:.1f})">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{box:g}" height="{HEIGHT}" rx="9"/><circle cx="14" cy="18" r="4"/>'
        f'<text class="name" x="24" y="22">{escape(_short(stage.name, int((box - 34) / LETTER)))}</text>'
        f'<text class="kind" x="24" y="39">{escape(stage.kind)}</text>'
        f'<text class="time" x="{box - 10:g}" y="39">'
        f"{escape(_short(stage.note, int((box - 44) / 6) - len(stage.kind)))}</text></g>"
    )


def _short(text: str, most: int) -> str:
    """At most ``most`` characters; the end is what tells ``a_b_c`` from ``a_b_d``."""
    if len(text) <= most:
        return text
    front = (most - 1) // 3
    return f"{text[:front]}…{text[len(text) - (most - 1 - front) :]}"


def short_time(seconds: float | None) -> str:
    """A duration beside a name: "12 s", "3.1 min"; nothing for None."""
    if seconds is None:
        return ""
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
