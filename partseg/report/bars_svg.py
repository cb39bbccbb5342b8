"""Horizontal bars, each made of parts, as one SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from partseg.report.curves_svg import nice_ticks

WIDTH, ROW, BAR, LEFT, RIGHT, TOP = 720, 34, 20, 150, 90, 62
# Dark enough for white paper and light enough for dark; told apart without red against green, too.
COLOURS = ("#4477aa", "#ee9944", "#66a182", "#aa4466", "#8877bb", "#c2b23a", "#777777")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}"
    ".end{text-anchor:end}.middle{text-anchor:middle}line{stroke:#ddd}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its name, the sizes of its parts in order, and what is written behind it."""

    name: str
    parts: Mapping[str, float]
    note: str = ""


def bars_svg(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """A picture of bars that begin at 0, with a legend where they have several parts.

    Args:
        title: above it.
        unit: of all sizes, below the axis.
        bars: from top to bottom; sizes are at least 0.
    """
    names = list(dict.fromkeys(name for bar in bars for name in bar.parts))
    longest = max((sum(bar.parts.values()) for bar in bars), default=0.0)
    ticks = nice_ticks(0.0, longest)
    scale = (WIDTH - LEFT - RIGHT) / (ticks[-1] or 1.0)
    foot = TOP + ROW * len(bars)
    drawn = [f'<text class="title" x="12" y="22">{escape(title)}</text>']
    if len(names) > 1:
        x = 12
        for place, name in enumerate(names):
            drawn.append(_box(x, 34, 12, 12, place) + f'<text x="{x + 17}" y="44">{escape(name)}</text>')
            x += 34 + 7 * len(name)
    for tick in ticks:
        x_tick = LEFT + tick * scale
        drawn.append(f'<line x1="{x_tick:.1f}" x2="{x_tick:.1f}" y1="{TOP - 6}" y2="{foot}"/>')
        drawn.append(f'<text class="middle" x="{x_tick:.1f}" y="{foot + 16}">{tick:g}</text>')
    drawn.append(f'<text class="end" x="{WIDTH - 12}" y="{foot + 34}">{escape(unit)}</text>')
    for row, bar in enumerate(bars):
        y, start = TOP + ROW * row, float(LEFT)
        drawn.append(f'<text class="end" x="{LEFT - 10}" y="{y + 15}">{escape(bar.name)}</text>')
        for name, size in bar.parts.items():
            drawn.append(_box(start, y, size * scale, BAR, names.index(name), f"{name}: {size:.4g} {unit}"))
            start += size * scale
        drawn.append(f'<text x="{start + 6:.1f}" y="{y + 15}">{escape(bar.note)}</text>')
    height = foot + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(drawn)}</svg>\n'
    )


def _box(x: float, y: float, width: float, height: float, colour: int, title: str = "") -> str:
    hint = f"<title>{escape(title)}</title>" if title else ""
    fill = COLOURS[colour % len(COLOURS)]
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}">{hint}</rect>'
    )
