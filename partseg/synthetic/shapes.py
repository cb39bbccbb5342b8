"""Outlines and paints that made-up animals and vehicles are put together from.

Local coordinates: x to the front of the animal or vehicle, y down; one unit is roughly half its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [K, 2] xy
Colour = tuple[int, int, int]
Pattern = Literal["plain", "stripes", "spots", "wool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paint:
    """A colour, and a second one laid over it in a pattern.

    Attributes:
        period: of the pattern, in local units.
        angle: of stripes, radians.
    """

    colour: Colour
    other: Colour | None = None
    pattern: Pattern = "plain"
    period: float = 0.2
    angle: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One painted outline.

    Attributes:
        part: raw part name as Pascal-Part writes it; None for what belongs to the object but to no part.
        inside: the shape lies on the part drawn before it, whose mask keeps these pixels (an eye on a head).
    """

    part: str | None
    points: Points
    paint: Paint
    inside: bool = False


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Points:
    """An ellipse around (x, y)."""
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    outline: Points = turned(np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1), angle) + np.array([x, y])
    return outline


def limb(start: tuple[float, float], end: tuple[float, float], wide: float, narrow: float) -> Points:
    """A rounded limb from ``start`` (radius ``wide``) to ``end`` (radius ``narrow``)."""
    a, b = np.array(start), np.array(end)
    heading = float(np.arctan2(*(b - a)[::-1]))
    t = np.linspace(np.pi / 2, 3 * np.pi / 2, 9)
    back = np.stack([np.cos(t), np.sin(t)], axis=1)
    cap_a, cap_b = turned(back * wide, heading) + a, turned(-back * narrow, heading) + b
    return np.concatenate([cap_a, cap_b])


def polygon(*points: tuple[float, float]) -> Points:
    """Straight edges between the given points."""
    return np.array(points, np.float64)


def curve(*points: tuple[float, float]) -> Points:
    """A smooth closed outline through the given points (Catmull-Rom)."""
    p = np.array(points, np.float64)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    spline = (
        2 * p
        + t * (after - before)
        + t**2 * (2 * before - 5 * p + 4 * after - beyond)
        + t**3 * (3 * p - before - 3 * after + beyond)
    ) / 2
    outline: Points = spline.transpose(1, 0, 2).reshape(-1, 2)
    return outline


def box(x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> Points:
    """A rectangle with cut corners."""
    c = corner
    return polygon(
        (x0 + c, y0),
        (x1 - c, y0),
        (x1, y0 + c),
        (x1, y1 - c),
        (x1 - c, y1),
        (x0 + c, y1),
        (x0, y1 - c),
        (x0, y0 + c),
    )


def turned(points: Points, angle: float) -> Points:
    """The points turned around the origin, clockwise on the screen."""
    c, s = np.cos(angle), np.sin(angle)
    result: Points = points @ np.array([[c, s], [-s, c]])
    return result


def moved(shapes: Sequence[Shape], pivot: tuple[float, float], angle: float) -> list[Shape]:
    """The shapes turned around ``pivot``."""
    return [replace(s, points=turned(s.points - pivot, angle) + pivot) for s in shapes]


def toned(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    if factor <= 1:
        r, g, b = (round(value * factor) for value in colour)
    else:
        r, g, b = (round(value + (255 - value) * (factor - 1)) for value in colour)
    return r, g, b


def jittered(colour: Colour, random: np.random.Generator, most: int) -> Colour:
    """The colour with up to ``most`` more or less of each primary."""
    r, g, b = (int(np.clip(value + random.integers(-most, most + 1), 0, 255)) for value in colour)
    return r, g, b


def pattern_weight(paint: Paint, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of ``paint.other`` shows at local coordinates, 0 to 1."""
    step = 2 * np.pi / paint.period
    match paint.pattern:
        case "plain":
            weight = np.zeros_like(x)
        case "stripes":
            weight = 0.5 + 1.5 * np.sin(step * (x * np.cos(paint.angle) + y * np.sin(paint.angle)))
        case "spots":
            wave = np.sin(step * x + 1.3 * np.sin(step * 0.6 * y)) * np.sin(step * 0.9 * y + paint.angle)
            weight = 4 * (wave - 0.15)
        case "wool":
            wave = np.sin(step * x) * np.sin(step * y) + 0.6 * np.sin(step * 0.7 * (x + y))
            weight = 0.5 + 0.5 * wave
    clipped: NDArray[np.float64] = np.clip(weight, 0, 1)
    return clipped
