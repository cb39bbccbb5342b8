"""Made-up animals, drawn from the side, with the raw part names of Pascal-Part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from partseg.synthetic.animal_parts import CREAM, eye, neck, tail_paint
from partseg.synthetic.four_legged import KINDS, draw_four_legged
from partseg.synthetic.shapes import (
    Colour,
    Paint,
    Shape,
    curve,
    ellipse,
    jittered,
    limb,
    moved,
    polygon,
    toned,
)


def draw_bird(random: np.random.Generator) -> list[Shape]:
    """A bird that stands or is about to fly."""
    coats: tuple[Colour, ...] = ((70, 120, 196), (204, 70, 62), (88, 160, 90))
    coat = jittered(coats[random.integers(3)], random, 16)
    lift = random.uniform(-0.5, 0.35)
    feathers = Paint(colour=toned(coat, 0.6), other=CREAM, pattern="stripes", period=0.22, angle=1.4)
    wing = curve((0.3, -0.12), (-0.1, -0.25), (-0.75, 0.0), (-0.55, 0.18), (0.1, 0.22))
    far_wing = Shape(part="rwing", points=wing * (0.9, 1) + (0.05, -0.1), paint=feathers)
    near_wing = Shape(part="lwing", points=wing, paint=feathers)
    tail = polygon((-0.5, 0.0), (-1.1, 0.2), (-1.15, 0.42), (-0.42, 0.28))
    belly = Paint(colour=coat, other=toned(coat, 1.4), pattern="spots", period=0.3)
    x, y = 0.62, -0.52
    beak = polygon((x + 0.2, y - 0.12), (x + 0.62, y + 0.06), (x + 0.18, y + 0.16))
    head = [
        Shape(part="beak", points=beak, paint=Paint(colour=(244, 150, 30))),
        Shape(part="head", points=ellipse(x, y, 0.3, 0.28), paint=Paint(colour=toned(coat, 1.3))),
        *eye("l", x + 0.08, y - 0.05, 0.11),
    ]
    return [
        *_bird_leg("r", 0.08, 0.8),
        *_bird_leg("l", -0.12, 1.0),
        *moved([far_wing], (0.2, -0.2), 0.5 + lift),
        Shape(part="tail", points=tail, paint=tail_paint(coat, 0.3)),
        Shape(part="torso", points=ellipse(0, 0, 0.62, 0.4, -0.3), paint=belly),
        neck(coat, limb((0.4, -0.1), (x - 0.06, y + 0.12), 0.24, 0.2)),
        *moved(head, (x, y), random.uniform(-0.25, 0.25)),
        *moved([near_wing], (0.25, -0.1), lift),
    ]


def _bird_leg(side: str, x: float, tone: float) -> list[Shape]:
    foot = polygon((x - 0.12, 0.84), (x + 0.02, 0.68), (x + 0.26, 0.84))
    return [
        Shape(
            part=f"{side}leg",
            points=limb((x, 0.3), (x + 0.02, 0.72), 0.07, 0.06),
            paint=Paint(colour=toned((206, 120, 40), tone)),
        ),
        Shape(part=f"{side}foot", points=foot, paint=Paint(colour=toned((240, 190, 90), tone))),
    ]


ANIMALS: Mapping[str, Callable[[np.random.Generator], list[Shape]]] = {
    "bird": draw_bird,
    **{name: partial(draw_four_legged, kind) for name, kind in KINDS.items()},
}
