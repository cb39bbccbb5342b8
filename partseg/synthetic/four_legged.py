"""Made-up four-legged animals, drawn from the side.

They share their parts and how a part looks; kinds differ in proportion, colour and coat.
Part names are Pascal-Part's raw names: ``lfleg`` is the left front leg, ``rear`` the right ear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from partseg.synthetic.animal_parts import CREAM, DARK, eye, neck, tail_paint
from partseg.synthetic.shapes import (
    Colour,
    Paint,
    Pattern,
    Points,
    Shape,
    curve,
    ellipse,
    jittered,
    limb,
    moved,
    polygon,
    toned,
)

_PINK: Colour = (236, 152, 160)
_IVORY: Colour = (240, 232, 205)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Proportions and coat of one kind of four-legged animal.

    Attributes:
        coats: base colours to choose from.
        neck: its length.
        legs: their length.
        ears: "pointed", "floppy" or "side".
        split_legs: upper and lower leg are parts of their own (cow, horse, sheep).
        paws: paws are parts (cat, dog); with ``hoofs`` the tips are hoofs, which have no category.
    """

    coats: tuple[Colour, ...]
    pattern: Pattern = "plain"
    other: float = 0.6
    period: float = 0.4
    length: float = 1.0
    depth: float = 0.36
    neck: float = 0.25
    legs: float = 0.55
    thick: float = 0.12
    head: float = 0.38
    ears: str = "pointed"
    muzzle: float = 0.0
    nose: bool = False
    horns: bool = False
    mane: bool = False
    split_legs: bool = False
    paws: bool = False
    hoofs: bool = False
    tail: float = 0.6
    tail_up: float = 0.6


KINDS: Mapping[str, Kind] = {
    "cat": Kind(
        coats=((224, 138, 56), (150, 148, 156), (206, 172, 128)),
        pattern="stripes",
        period=0.22,
        head=0.42,
        nose=True,
        paws=True,
        tail=0.8,
        tail_up=1.1,
        legs=0.5,
    ),
    "dog": Kind(
        coats=((164, 104, 56), (214, 178, 120), (122, 92, 74)),
        pattern="spots",
        other=0.72,
        period=0.7,
        ears="floppy",
        muzzle=0.16,
        nose=True,
        paws=True,
        legs=0.6,
        thick=0.13,
        tail_up=0.9,
    ),
    "cow": Kind(
        coats=((236, 232, 226), (214, 168, 124)),
        pattern="spots",
        other=0.22,
        period=0.75,
        length=1.15,
        depth=0.44,
        neck=0.22,
        ears="side",
        muzzle=0.2,
        horns=True,
        split_legs=True,
        thick=0.13,
        tail_up=-0.6,
    ),
    "horse": Kind(
        coats=((142, 78, 44), (92, 62, 50), (196, 160, 112)),
        length=1.05,
        depth=0.36,
        neck=0.55,
        legs=0.72,
        thick=0.12,
        head=0.34,
        muzzle=0.2,
        mane=True,
        split_legs=True,
        hoofs=True,
        tail=0.7,
        tail_up=-0.4,
    ),
    "sheep": Kind(
        coats=((240, 234, 216), (222, 212, 200)),
        pattern="wool",
        other=0.84,
        period=0.2,
        length=0.95,
        depth=0.46,
        neck=0.2,
        legs=0.42,
        head=0.36,
        ears="side",
        muzzle=0.17,
        split_legs=True,
        tail=0.32,
        tail_up=-0.5,
    ),
}


def draw_four_legged(kind: Kind, random: np.random.Generator) -> list[Shape]:
    """One animal in a random pose, from back to front."""
    coat = jittered(kind.coats[random.integers(len(kind.coats))], random, 16)
    half = kind.length * random.uniform(0.92, 1.08)
    depth = kind.depth * random.uniform(0.92, 1.08)
    swing = random.uniform(-0.3, 0.3)
    hip, shoulder = (-half * 0.72, depth * 0.45), (half * 0.68, depth * 0.45)
    torso = curve(
        (-half, -0.05),
        (-half * 0.7, -depth),
        (0, -depth * 0.9),
        (half * 0.75, -depth),
        (half, 0),
        (half * 0.7, depth),
        (0, depth * 1.02),
        (-half * 0.75, depth * 0.9),
    )
    body = Paint(
        colour=coat,
        other=toned(coat, kind.other),
        pattern=kind.pattern,
        period=kind.period,
        angle=random.uniform(-0.3, 0.3),
    )
    return [
        *_leg(kind, coat, "rb", (hip[0] + 0.2, hip[1]), -swing, 0.82),
        *_leg(kind, coat, "rf", (shoulder[0] - 0.2, shoulder[1]), swing, 0.82),
        _tail(kind, coat, (-half * 0.92, -depth * 0.45), random),
        Shape(part="torso", points=torso, paint=body),
        *_leg(kind, coat, "lb", hip, swing, 1.0),
        *_leg(kind, coat, "lf", shoulder, -swing, 1.0),
        *_neck_and_head(kind, coat, (half * 0.72, -depth * 0.55), random),
    ]


def _leg(
    kind: Kind, coat: Colour, side: str, at: tuple[float, float], swing: float, tone: float
) -> list[Shape]:
    """Leg with its tip; ``side`` is lf, rf, lb or rb."""
    dark = Paint(colour=toned(coat, 0.66 * tone))
    knee = (at[0] + kind.legs * 0.5 * np.sin(swing), at[1] + kind.legs * 0.5)
    foot = (knee[0] + kind.legs * 0.5 * np.sin(swing * 0.4), knee[1] + kind.legs * 0.5)
    tip = ellipse(foot[0] + 0.05, foot[1], kind.thick * 1.25, kind.thick * 0.85)
    if kind.split_legs:
        lower = Paint(colour=toned(coat, 0.5 * tone))
        shapes = [
            Shape(
                part=f"{side}lleg", points=limb(knee, foot, kind.thick * 0.9, kind.thick * 0.75), paint=lower
            ),
            Shape(
                part=f"{side}uleg", points=limb(at, knee, kind.thick * 1.25, kind.thick * 0.95), paint=dark
            ),
        ]
        hoof = Shape(part=f"{side}ho", points=tip, paint=Paint(colour=DARK))
        return [*shapes, hoof] if kind.hoofs else shapes
    leg = Shape(part=f"{side}leg", points=limb(at, foot, kind.thick * 1.3, kind.thick * 0.85), paint=dark)
    paw = Shape(part=f"{side}pa", points=tip, paint=Paint(colour=toned(CREAM, tone)))
    return [leg, paw] if kind.paws else [leg]


def _tail(kind: Kind, coat: Colour, at: tuple[float, float], random: np.random.Generator) -> Shape:
    angle = kind.tail_up + random.uniform(-0.35, 0.35)
    x, y = -np.cos(angle) * kind.tail, -np.sin(angle) * kind.tail
    bend = (at[0] + 0.55 * x - 0.12, at[1] + 0.45 * y)
    tip = (at[0] + x, at[1] + y * 1.1)
    w = 0.09
    points = curve(
        (at[0], at[1] - w), (bend[0] - w, bend[1] - w), (tip[0] - w, tip[1]), (tip[0] + w, tip[1] - 0.02),
        (bend[0] + w, bend[1] + w), (at[0] + 0.1, at[1] + w),
    )  # fmt: skip
    return Shape(part="tail", points=points, paint=tail_paint(coat, angle))


def _neck_and_head(
    kind: Kind, coat: Colour, at: tuple[float, float], random: np.random.Generator
) -> list[Shape]:
    r = kind.head * random.uniform(0.95, 1.08)
    x, y = at[0] + 0.22 + kind.neck * 0.5, at[1] - kind.neck * 1.05 - r * 0.35
    shapes = [neck(coat, limb((at[0] - 0.05, at[1] + 0.15), (x - 0.05, y + 0.1), 0.27, 0.19))]
    if kind.mane:
        mane = curve((at[0] - 0.25, at[1] - 0.1), (x - 0.4, y - 0.05), (x - 0.1, y - r), (x - 0.12, y + 0.1))
        shapes.insert(0, Shape(part=None, points=mane, paint=Paint(colour=toned(coat, 0.4))))
    return shapes + moved(_head(kind, coat, x, y, r), (x, y), random.uniform(-0.25, 0.25))


def _head(kind: Kind, coat: Colour, x: float, y: float, r: float) -> list[Shape]:
    shapes = [
        Shape(part=f"{side}ear", points=points, paint=Paint(colour=toned(coat, tone)))
        for side, points, tone in _ears(kind.ears, x, y, r)
        if side == "r"
    ]
    if kind.horns:
        for side, dx in (("r", 0.28), ("l", -0.08)):
            horn = polygon(
                (x + dx * r - 0.06, y - 0.75 * r),
                (x + dx * r + 0.08, y - 0.8 * r),
                (x + dx * r + 0.2, y - 1.55 * r),
            )
            shapes.append(Shape(part=f"{side}horn", points=horn, paint=Paint(colour=_IVORY)))
    face = ellipse(x, y, r, r * 0.92)
    if kind.muzzle:
        long_face = [(-0.9, 0), (-0.3, -0.88), (0.6, -0.6), (1.25, 0.25), (0.9, 0.8), (-0.2, 0.8)]
        face = curve(*((x + dx * r, y + dy * r) for dx, dy in long_face))
    shapes.append(Shape(part="head", points=face, paint=Paint(colour=toned(coat, 1.3))))
    if kind.muzzle:
        snout = ellipse(x + r * 0.95, y + r * 0.42, kind.muzzle * 1.25, kind.muzzle, 0.3)
        shapes.append(Shape(part="muzzle", points=snout, paint=Paint(colour=_PINK), inside=True))
    if kind.nose:
        at_x, at_y = (x + r * 0.78, y + r * 0.25) if not kind.muzzle else (x + r * 1.3, y + r * 0.25)
        nose = ellipse(at_x, at_y, 0.11, 0.09)
        shapes.append(Shape(part="nose", points=nose, paint=Paint(colour=(90, 30, 44)), inside=True))
    shapes += eye("l", x + r * 0.25, y - r * 0.18, 0.125)
    return shapes + [
        Shape(part=f"{side}ear", points=points, paint=Paint(colour=toned(coat, tone)))
        for side, points, tone in _ears(kind.ears, x, y, r)
        if side == "l"
    ]


def _ears(style: str, x: float, y: float, r: float) -> list[tuple[str, Points, float]]:
    if style == "floppy":
        return [
            ("r", ellipse(x + r * 0.35, y - r * 0.7, 0.11, 0.2, -0.3), 0.4),
            ("l", ellipse(x - r * 0.5, y + r * 0.02, 0.15, 0.32, 0.25), 0.48),
        ]
    if style == "side":
        return [
            ("r", ellipse(x + r * 0.5, y - r * 0.78, 0.1, 0.17, 0.5), 0.4),
            ("l", ellipse(x - r * 0.85, y - r * 0.35, 0.25, 0.12, 0.35), 0.48),
        ]
    return [
        (
            "r",
            polygon((x + r * 0.1, y - r * 0.7), (x + r * 0.5, y - r * 1.5), (x + r * 0.75, y - r * 0.5)),
            0.4,
        ),
        (
            "l",
            polygon((x - r * 0.85, y - r * 0.35), (x - r * 0.5, y - r * 1.5), (x + r * 0.05, y - r * 0.8)),
            0.48,
        ),
    ]
