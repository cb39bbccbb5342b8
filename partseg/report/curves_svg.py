"""Curves of losses, and of precision, as inline SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from partseg.errors import PartsegError

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 24
MAX_POINTS = 160  # a line of this many points looks the same as one of ten thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One quantity over the iterations, or over whatever the chart's axis is."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def read_curves(path: Path) -> list[Line]:
    """The losses in a ``metrics.jsonl``: one JSON object per line with ``iteration`` and numbers.

    Quantities named ``total`` or ``loss...`` are read, the total first. Long histories are averaged
    in bins of equal length.

    Raises:
        PartsegError: the file is missing or a line is not a JSON object with an iteration.
    """
    columns: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise PartsegError("the metrics of a training cannot be read", where=path) from error
    for number, text in enumerate(lines, start=1):
        try:
            row: dict[str, Any] = json.loads(text)
            iteration = float(row["iteration"])
        except (ValueError, KeyError, TypeError) as error:
            raise PartsegError("not a line of training metrics", where=f"{path}:{number}") from error
        for name, value in _flat(row).items():
            if name == "total" or name.startswith("loss"):
                columns.setdefault(name, []).append((iteration, value))
    order = sorted(columns, key=lambda name: (name not in ("total", "loss", "loss_total"), name))
    return [_binned(name, columns[name]) for name in order]


def _flat(row: dict[str, Any]) -> dict[str, float]:
    nested = row.get("losses")
    values = {**row, **(nested if isinstance(nested, dict) else {})}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _binned(name: str, points: Sequence[tuple[float, float]]) -> Line:
    size = -(-len(points) // MAX_POINTS)
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return Line(
        name=name,
        x=tuple(round(sum(x for x, _ in part) / len(part), 3) for part in bins),
        y=tuple(round(sum(y for _, y in part) / len(part), 6) for part in bins),
    )


def chart_svg(lines: Sequence[Line], title: str, axis: str = "iteration") -> str:
    """A small chart; the first line is drawn strongest. Colours come from the page's style sheet.

    Args:
        lines: of any number of points each.
        title: for those who cannot see it.
        axis: what ``x`` is.
    """
    shown = [line for line in lines if line.x]
    if not shown:
        return ""
    x0, x1 = min(min(line.x) for line in shown), max(max(line.x) for line in shown)
    ticks = nice_ticks(0.0, max(max(line.y) for line in shown))
    top = ticks[-1]

    def place(x: float, y: float) -> str:
        px = LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - max(0.0, y) / (top or 1) * (HEIGHT - TOP - BOTTOM)
        return f"{px:.1f},{py:.1f}"

    grid = []
    for tick in ticks:
        y = float(place(x0, tick).split(",")[1])
        grid.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        grid.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5}">{tick:g}</text>')
    for x, anchor in ((x0, "start"), (x1, "end")):
        px = place(x, 0).split(",")[0]
        grid.append(f'<text class="tick {anchor}" x="{px}" y="{HEIGHT - 7}">{x:g}</text>')
    grid.append(f'<text class="tick middle" x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 7}">{escape(axis)}</text>')
    drawn = [
        f'<polyline class="line c{min(i, 7)}" points="{" ".join(map(place, line.x, line.y))}">'
        f"<title>{escape(line.name)}</title></polyline>"
        for i, line in reversed(list(enumerate(shown)))
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(grid)}{"".join(drawn)}</svg>'
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to at least ``high``, about four steps."""
    span = (high - low) or 1.0
    raw = span / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    return [round(low + i * step, 10) for i in range(math.ceil(span / step - 1e-9) + 1)]
