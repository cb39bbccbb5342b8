"""Made-up vehicles, drawn from the side, with the raw part names of Pascal-Part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from partseg.synthetic.shapes import (
    Colour,
    Paint,
    Shape,
    box,
    curve,
    ellipse,
    jittered,
    limb,
    moved,
    polygon,
    toned,
)

_TYRE: Colour = (44, 44, 50)
_HUB: Colour = (196, 198, 206)
_GLASS: Colour = (164, 214, 236)
_LAMP: Colour = (252, 226, 96)
_STEEL: Colour = (120, 122, 132)
_PAINTS: tuple[Colour, ...] = ((206, 60, 52), (48, 110, 190), (58, 148, 96), (228, 164, 44), (150, 90, 170))


def _body_colour(random: np.random.Generator) -> Colour:
    return jittered(_PAINTS[random.integers(len(_PAINTS))], random, 20)


def _wheel(part: str, x: float, y: float, r: float) -> list[Shape]:
    return [
        Shape(part=part, points=ellipse(x, y, r, r), paint=Paint(colour=_TYRE)),
        Shape(part=part, points=ellipse(x, y, r * 0.55, r * 0.55), paint=Paint(colour=_HUB)),
        Shape(part=part, points=ellipse(x, y, r * 0.18, r * 0.18), paint=Paint(colour=_TYRE)),
    ]


def _spoked(part: str, x: float, y: float, r: float, tyre: float) -> list[Shape]:
    return [
        Shape(part=part, points=ellipse(x, y, r, r), paint=Paint(colour=_TYRE)),
        Shape(part=part, points=ellipse(x, y, r - tyre, r - tyre), paint=Paint(colour=_HUB)),
        Shape(part=part, points=ellipse(x, y, r * 0.2, r * 0.2), paint=Paint(colour=_TYRE)),
    ]


def _window(number: int, x0: float, y0: float, x1: float, y1: float, slant: float = 0.0) -> Shape:
    glass = Paint(colour=_GLASS, other=(226, 244, 250), pattern="stripes", period=0.3, angle=0.7)
    points = polygon((x0 + max(slant, 0), y0), (x1 + min(slant, 0), y0), (x1, y1), (x0, y1))
    return Shape(part=f"window_{number}", points=points, paint=glass)


def _door(number: int, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> list[Shape]:
    panel = Paint(
        colour=toned(colour, 0.62), other=toned(colour, 0.52), pattern="stripes", period=0.16, angle=1.57
    )
    handle = box(x1 - 0.14, y0 + 0.1, x1 - 0.04, y0 + 0.15)
    return [
        Shape(part=f"door_{number}", points=box(x0, y0, x1, y1, 0.03), paint=panel, inside=True),
        Shape(part=f"door_{number}", points=handle, paint=Paint(colour=_HUB), inside=True),
    ]


def _plate(part: str, x: float, y: float) -> list[Shape]:
    text = Paint(colour=(250, 250, 246), other=_TYRE, pattern="stripes", period=0.1)
    return [Shape(part=part, points=box(x - 0.2, y - 0.09, x + 0.2, y + 0.09), paint=text, inside=True)]


def _lamp(number: int, x: float, y: float) -> Shape:
    return Shape(
        part=f"headlight_{number}", points=ellipse(x, y, 0.13, 0.13), paint=Paint(colour=_LAMP), inside=True
    )


def draw_car(random: np.random.Generator) -> list[Shape]:
    """A car facing right."""
    colour = _body_colour(random)
    roof = -0.62 * random.uniform(0.9, 1.15)
    nose = random.uniform(0.95, 1.15)
    body = curve(
        (-1.1, 0.1),
        (-1.05, -0.15),
        (-0.75, -0.22),
        (0, -0.2),
        (0.75, -0.16),
        (nose, 0.0),
        (nose, 0.3),
        (0, 0.36),
        (-1.05, 0.32),
    )
    cabin = polygon((-0.82, -0.15), (-0.55, roof), (0.28, roof), (0.66, -0.15))
    return [
        Shape(part="rightside", points=cabin, paint=Paint(colour=toned(colour, 0.9))),
        _window(1, -0.66, roof + 0.09, -0.13, -0.16, 0.16),
        _window(2, -0.05, roof + 0.09, 0.5, -0.16, -0.27),
        Shape(part="rightside", points=body, paint=Paint(colour=colour)),
        *_door(1, -0.6, -0.14, -0.08, 0.26, colour),
        *_door(2, -0.04, -0.14, 0.44, 0.26, colour),
        Shape(part="rightmirror", points=ellipse(0.56, -0.16, 0.1, 0.07), paint=Paint(colour=_TYRE)),
        _lamp(1, nose - 0.15, 0.03),
        *_plate("fliplate", nose - 0.24, 0.25),
        *_wheel("wheel_1", -0.68, 0.36, 0.25),
        *_wheel("wheel_2", 0.5, 0.36, 0.25),
    ]


def draw_bus(random: np.random.Generator) -> list[Shape]:
    """A bus facing right."""
    colour = _body_colour(random)
    top, front = -0.72 * random.uniform(0.92, 1.1), random.uniform(1.2, 1.35)
    edges = np.linspace(-1.12, front - 0.62, 4)
    windows = [
        _window(n + 1, x + 0.04, top + 0.14, y - 0.04, -0.2) for n, (x, y) in enumerate(pairwise(edges))
    ]
    return [
        Shape(part="rightside", points=box(-1.25, top, front, 0.42, 0.1), paint=Paint(colour=colour)),
        Shape(
            part="rightside",
            points=box(-1.23, -0.08, front - 0.02, 0.02),
            paint=Paint(colour=toned(colour, 1.6)),
        ),
        *windows,
        _window(4, front - 0.2, top + 0.14, front - 0.03, -0.12),
        *_door(1, front - 0.56, top + 0.12, front - 0.26, 0.38, colour),
        *_door(2, -0.3, -0.14, 0.02, 0.38, colour),
        Shape(
            part="rightmirror", points=ellipse(front + 0.05, top + 0.3, 0.06, 0.11), paint=Paint(colour=_TYRE)
        ),
        _lamp(1, front - 0.12, 0.1),
        *_plate("fliplate", front - 0.22, 0.31),
        *_wheel("wheel_1", -0.8, 0.44, 0.24),
        *_wheel("wheel_2", 0.38, 0.44, 0.24),
    ]


def draw_aeroplane(random: np.random.Generator) -> list[Shape]:
    """An aeroplane facing right."""
    colour = _body_colour(random)
    light: Colour = (232, 234, 240)
    hull = curve(
        (-1.2, -0.12),
        (-0.6, -0.22),
        (0.6, -0.24),
        (1.1, -0.08),
        (1.2, 0.05),
        (0.9, 0.18),
        (-0.5, 0.2),
        (-1.15, 0.02),
    )
    wing = Paint(colour=colour, other=toned(colour, 0.7), pattern="stripes", period=0.24, angle=0.2)
    far = polygon((0.25, -0.15), (-0.15, -0.15), (-0.42, -0.6), (-0.22, -0.6))
    near = polygon((0.3, 0.06), (-0.25, 0.06), (-0.78, 0.66), (-0.45, 0.68))
    fin = polygon((-0.78, -0.16), (-1.15, -0.14), (-1.3, -0.66), (-1.08, -0.66))
    shapes = [
        *_wheel("wheel_1", -0.1, 0.32, 0.16),
        *_wheel("wheel_2", 0.8, 0.28, 0.15),
        Shape(part="rwing", points=far, paint=wing),
        Shape(part="tail", points=fin, paint=Paint(colour=toned(colour, 0.7))),
        Shape(part="body", points=hull, paint=Paint(colour=light)),
        *(
            Shape(
                part=None,
                points=ellipse(x, -0.06, 0.05, 0.05),
                paint=Paint(colour=toned(_GLASS, 0.7)),
                inside=True,
            )
            for x in np.linspace(-0.5, 0.7, 6)
        ),
        Shape(part="engine_1", points=box(-0.42, 0.3, -0.08, 0.48, 0.05), paint=Paint(colour=_STEEL)),
        Shape(part="lwing", points=near, paint=wing),
    ]
    return moved(shapes, (0, 0), random.uniform(-0.3, 0.05))


def draw_motorbike(random: np.random.Generator) -> list[Shape]:
    """A motorbike facing right."""
    colour = _body_colour(random)
    r = 0.36 * random.uniform(0.95, 1.08)
    bar = [
        Shape(part=None, points=limb((0.78, 0.3), (0.5, -0.35), 0.06, 0.05), paint=Paint(colour=_STEEL)),
        Shape(
            part="handlebar", points=limb((0.53, -0.33), (0.3, -0.5), 0.06, 0.07), paint=Paint(colour=_TYRE)
        ),
        Shape(part="headlight_1", points=ellipse(0.66, -0.24, 0.13, 0.12), paint=Paint(colour=_LAMP)),
    ]
    tank = curve((-0.1, -0.1), (0.1, -0.3), (0.45, -0.25), (0.5, -0.05), (0.1, 0.05))
    frame = polygon((-0.55, 0.05), (0.45, -0.08), (0.3, 0.4), (-0.3, 0.42))
    saddle = curve((-0.85, -0.22), (-0.4, -0.22), (0.02, -0.16), (-0.05, -0.02), (-0.5, -0.02))
    return [
        *_wheel("bwheel", -0.75, 0.3, r),
        *_wheel("fwheel", 0.8, 0.3, r),
        Shape(
            part=None, points=frame, paint=Paint(colour=_STEEL, other=_HUB, pattern="stripes", period=0.16)
        ),
        Shape(part=None, points=tank, paint=Paint(colour=colour)),
        Shape(part="saddle", points=saddle, paint=Paint(colour=(112, 62, 40))),
        *moved(bar, (0.78, 0.3), random.uniform(-0.12, 0.12)),
    ]


def draw_bicycle(random: np.random.Generator) -> list[Shape]:
    """A bicycle facing right."""
    colour = Paint(colour=_body_colour(random))
    r = 0.46 * random.uniform(0.95, 1.06)
    back, front, pedals, seat, head = (-0.7, 0.3), (0.75, 0.3), (-0.05, 0.36), (-0.25, -0.3), (0.52, -0.3)
    tubes = [(back, pedals), (pedals, seat), (back, seat), (seat, head), (pedals, head), (head, front)]
    return [
        *_spoked("bwheel", *back, r, 0.1),
        *_spoked("fwheel", *front, r, 0.1),
        *(Shape(part=None, points=limb(a, b, 0.045, 0.045), paint=colour) for a, b in tubes),
        Shape(part=None, points=limb(head, (0.5, -0.5), 0.045, 0.045), paint=Paint(colour=_STEEL)),
        Shape(
            part="handlebar", points=limb((0.34, -0.6), (0.64, -0.5), 0.06, 0.07), paint=Paint(colour=_TYRE)
        ),
        Shape(
            part="saddle",
            points=curve((-0.52, -0.44), (-0.2, -0.42), (0.0, -0.36), (-0.2, -0.3), (-0.5, -0.28)),
            paint=Paint(colour=(112, 62, 40)),
        ),
    ]


VEHICLES: Mapping[str, Callable[[np.random.Generator], list[Shape]]] = {
    "aeroplane": draw_aeroplane,
    "bicycle": draw_bicycle,
    "bus": draw_bus,
    "car": draw_car,
    "motorbike": draw_motorbike,
}
