"""What all made-up animals share: colours, eyes, and how a neck and a tail are painted."""

from __future__ import annotations

from partseg.synthetic.shapes import Colour, Paint, Points, Shape, ellipse, toned

CREAM: Colour = (246, 226, 188)
DARK: Colour = (40, 32, 36)
WHITE: Colour = (250, 250, 250)


def tail_paint(coat: Colour, angle: float) -> Paint:
    """Of a tail at ``angle``, radians."""
    return Paint(
        colour=toned(coat, 0.8), other=toned(coat, 0.35), pattern="stripes", period=0.18, angle=angle
    )


def neck(coat: Colour, points: Points) -> Shape:
    """A neck of the given outline."""
    paint = Paint(colour=toned(coat, 0.84), other=toned(coat, 0.7), pattern="stripes", period=0.12, angle=1.2)
    return Shape(part="neck", points=points, paint=paint)


def eye(side: str, x: float, y: float, r: float) -> list[Shape]:
    """An eye of radius ``r`` around (x, y); ``side`` is l or r."""
    return [
        Shape(part=f"{side}eye", points=ellipse(x, y, r, r * 1.1), paint=Paint(colour=WHITE), inside=True),
        Shape(
            part=f"{side}eye",
            points=ellipse(x + r * 0.25, y, r * 0.55, r * 0.65),
            paint=Paint(colour=DARK),
            inside=True,
        ),
    ]
