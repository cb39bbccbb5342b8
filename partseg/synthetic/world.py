"""Scenes: one animal or vehicle (sometimes two) before a made-up landscape, with the masks of all parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from partseg.synthetic.animals import ANIMALS
from partseg.synthetic.shapes import Colour, Points, Shape, pattern_weight, toned
from partseg.synthetic.vehicles import VEHICLES

DRAWINGS: Mapping[str, Callable[[np.random.Generator], list[Shape]]] = {**ANIMALS, **VEHICLES}
CLASSES = tuple(sorted(DRAWINGS))
NOVEL_CLASSES = ("bus", "dog")  # the held-out objects of VLPart's Pascal-Part benchmark
BASE_CLASSES = tuple(name for name in CLASSES if name not in NOVEL_CLASSES)

_OVERSAMPLING = 2  # drawn so many times larger, then averaged: smooth edges
SMALLEST = 16  # px; what is left of a part that is nearly hidden is not labelled

Mask = NDArray[np.bool_]
Canvas = NDArray[np.float64]  # [side, side, 3] RGB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnObject:
    """One object with its visible pixels.

    Attributes:
        mask: bool [H, W].
        parts: raw part name and mask bool [H, W], back to front; masks may overlap (an eye lies on a head).
    """

    name: str
    mask: Mask
    parts: tuple[tuple[str, Mask], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A picture uint8 [H, W, 3] RGB and what it shows.

    Attributes:
        objects: nearest first; their masks do not overlap.
        horizon: the first row of the ground; hills and trees may rise above it.
    """

    image: NDArray[np.uint8]
    objects: tuple[DrawnObject, ...]
    horizon: int = 0


def draw_scene(
    name: str, random: np.random.Generator, *, size: int = 128, companion: str | None = None
) -> Scene:
    """A scene with one ``name``, and a smaller ``companion`` behind it if wanted.

    Args:
        name: one of :data:`CLASSES`.
        random: everything varied is drawn from it.
        size: height and width, pixels.
        companion: one of :data:`CLASSES`.
    """
    canvas, horizon = _landscape(size * _OVERSAMPLING, random)
    layers = []
    if companion is not None:
        layers.append(_place(canvas, companion, random, share=(0.34, 0.46), near=False))
    layers.append(_place(canvas, name, random, share=(0.7, 0.95), near=True))
    pixels = _block_sums(canvas) / _OVERSAMPLING**2
    pixels = (pixels + random.normal(0, 3, pixels.shape)) * random.uniform(0.88, 1.08)
    return Scene(
        image=np.clip(pixels, 0, 255).astype(np.uint8),
        objects=tuple(_visible(layers)),
        horizon=horizon // _OVERSAMPLING,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """A painted object: which part shows at each pixel of the canvas, as 1 + its place in ``parts``.

    ``inner`` holds the shapes that lie on another part, so that both keep the pixel.
    """

    name: str
    parts: list[str | None]
    outer: NDArray[np.uint8]
    inner: NDArray[np.uint8]


def _visible(layers: Sequence[_Layer]) -> list[DrawnObject]:
    """Objects at the final size, nearest first; later layers hide earlier ones."""
    found = []
    hidden: Mask | None = None
    for layer in reversed(layers):
        whole = _shrunk((layer.outer > 0) | (layer.inner > 0))
        shown = whole if hidden is None else whole & ~hidden
        parts = []
        for number, part in enumerate(layer.parts, start=1):
            mask = _shrunk((layer.outer == number) | (layer.inner == number)) & shown
            if part is not None and mask.sum() >= SMALLEST:
                parts.append((part, mask))
        if parts:
            found.append(DrawnObject(name=layer.name, mask=shown, parts=tuple(parts)))
        hidden = whole if hidden is None else hidden | whole
    return found


def _shrunk(mask: Mask) -> Mask:
    return 2 * _block_sums(mask.astype(np.uint8)) >= _OVERSAMPLING**2


def _block_sums(array: NDArray[Any]) -> NDArray[Any]:
    """Sums over blocks of _OVERSAMPLING x _OVERSAMPLING pixels."""
    steps = range(_OVERSAMPLING)
    blocks = [array[row::_OVERSAMPLING, column::_OVERSAMPLING] for row in steps for column in steps]
    return functools.reduce(np.add, blocks)


def _place(
    canvas: Canvas, name: str, random: np.random.Generator, *, share: tuple[float, float], near: bool
) -> _Layer:
    """Draw one object on the canvas, its larger side ``share`` of the canvas."""
    side = len(canvas)
    shapes = DRAWINGS[name](random)
    tilt = random.uniform(-0.12, 0.12)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    if random.random() < 0.5:
        turn = np.diag([-1.0, 1.0]) @ turn
    outline = np.concatenate([shape.points for shape in shapes]) @ turn
    low, high = outline.min(axis=0), outline.max(axis=0)
    scale = side * random.uniform(*share) / (high - low).max()
    heights = (0.45, 0.95) if near else (0.1, 0.4)
    free = side - (high - low) * scale
    offset = free * (random.uniform(0.05, 0.95), random.uniform(*heights)) - low * scale
    if near:
        _shadow(canvas, outline * scale + offset)
    parts = list(dict.fromkeys(shape.part for shape in shapes))
    outer, inner = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    to_local = np.linalg.inv(turn) / scale
    for shape in shapes:
        number = 1 + parts.index(shape.part)
        window, ink = _paint(canvas, shape, shape.points @ turn * scale + offset, offset, to_local)
        if shape.inside:
            inner[window][ink] = number
        else:
            outer[window][ink] = number
            inner[window][ink & (inner[window] != number)] = 0
    return _Layer(name=name, parts=parts, outer=outer, inner=inner)


def _paint(
    canvas: Canvas, shape: Shape, points: Points, offset: Points, to_local: Points
) -> tuple[tuple[slice, slice], Mask]:
    """Paint one shape; returns the window of the canvas it lies in and which pixels of that it covers."""
    side = len(canvas)
    x0, y0 = (int(value) for value in np.clip(np.floor(points.min(axis=0)) - 2, 0, side - 1))
    x1, y1 = (int(value) for value in np.clip(np.ceil(points.max(axis=0)) + 3, 1, side))
    stencil = Image.new("L", (x1 - x0, y1 - y0))
    pen = ImageDraw.Draw(stencil)
    corners = [(float(x - x0), float(y - y0)) for x, y in points]
    pen.polygon(corners, fill=255)
    pen.line([*corners, corners[0]], fill=128, width=2)
    ink = np.asarray(stencil)
    paint = shape.paint
    colour = np.array(paint.colour, np.float64)
    if paint.other is not None:
        yy, xx = np.mgrid[y0:y1, x0:x1]
        local = (np.stack([xx, yy], axis=-1) - offset) @ to_local
        weight = pattern_weight(paint, local[..., 0], local[..., 1])[..., None]
        colour = colour + (np.array(paint.other) - colour) * weight
    light = np.linspace(1.1, 0.86, len(ink))[:, None, None]  # from above
    window = (slice(y0, y1), slice(x0, x1))
    painted = np.broadcast_to(colour * light, (*ink.shape, 3)) * np.where(ink == 128, 0.55, 1.0)[..., None]
    covered = ink > 0
    canvas[window][covered] = painted[covered]
    return window, covered


def _shadow(canvas: Canvas, points: Points) -> None:
    """A soft dark ellipse on the ground."""
    side = len(canvas)
    (x0, _), (x1, bottom) = points.min(axis=0), points.max(axis=0)
    first = max(0, int(bottom - side * 0.05))
    yy, xx = np.mgrid[first:side, 0:side]
    distance = ((xx - (x0 + x1) / 2) / ((x1 - x0) * 0.5)) ** 2 + ((yy - bottom) / (side * 0.035)) ** 2
    canvas[first:] *= (1 - 0.4 * np.clip(1.3 - distance, 0, 1))[..., None]


_SKIES: tuple[Colour, ...] = (
    (150, 200, 240),
    (244, 196, 160),
    (186, 190, 214),
    (120, 150, 200),
    (214, 226, 232),
)
_GROUNDS: tuple[Colour, ...] = (
    (126, 168, 84),
    (196, 172, 120),
    (150, 150, 146),
    (168, 128, 96),
    (228, 230, 236),
)


def _landscape(side: int, random: np.random.Generator) -> tuple[Canvas, int]:
    """Sky, hills, ground and clutter; and the row of the horizon."""
    sky = np.array(_SKIES[random.integers(len(_SKIES))], np.float64) + random.uniform(-15, 15, 3)
    ground = _GROUNDS[random.integers(len(_GROUNDS))]
    horizon = int(side * random.uniform(0.42, 0.66))
    fade = np.linspace(0.0, 1.0, side)[:, None, None]
    rows = np.clip(sky * (1 - 0.25 * fade) + 60 * fade, 0, 255).astype(np.uint8)
    canvas = Image.fromarray(np.broadcast_to(rows, (side, side, 3)).copy())
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(0, 4))):
        _cloud(pen, side, horizon, random)
    for _ in range(int(random.integers(1, 4))):
        x, r = random.uniform(0, side), side * random.uniform(0.2, 0.45)
        tone = toned(ground, random.uniform(0.6, 0.95))
        pen.ellipse((x - r, horizon - r * 0.5, x + r, horizon + r), fill=tone)
    pen.rectangle((0, horizon, side, side), fill=ground)
    for _ in range(int(random.integers(2, 6))):
        _clutter(pen, side, horizon, random)
    mottle = Image.fromarray(random.normal(0, 9, (12, 12)).astype(np.float32))
    mottle = mottle.resize((side, side), Image.Resampling.BICUBIC)
    pixels: Canvas = np.asarray(canvas, np.float64) + np.asarray(mottle)[..., None]
    return pixels, horizon


def _cloud(pen: ImageDraw.ImageDraw, side: int, horizon: int, random: np.random.Generator) -> None:
    x, y = random.uniform(0, side), random.uniform(0.05, 0.7) * horizon
    for _ in range(4):
        dx, r = random.uniform(-0.1, 0.1) * side, random.uniform(0.03, 0.07) * side
        pen.ellipse((x + dx - 1.6 * r, y - r, x + dx + 1.6 * r, y + r), fill=(246, 246, 250))


def _clutter(pen: ImageDraw.ImageDraw, side: int, horizon: int, random: np.random.Generator) -> None:
    """A tree, a bush, a rock, a post or a tuft of grass."""
    x, y = random.uniform(0, side), random.uniform(horizon, side)
    r = side * random.uniform(0.03, 0.08) * (0.6 + 0.8 * (y - horizon) / (side - horizon))
    green = toned((84, 140, 70), random.uniform(0.6, 1.3))
    grey = toned((150, 146, 140), random.uniform(0.6, 1.2))
    match int(random.integers(0, 5)):
        case 0:
            pen.rectangle((x - r * 0.25, y - 3 * r, x + r * 0.25, y), fill=(110, 80, 56))
            pen.ellipse((x - 1.3 * r, y - 5 * r, x + 1.3 * r, y - 2 * r), fill=green)
        case 1:
            pen.ellipse((x - 1.5 * r, y - r, x + 1.5 * r, y + r * 0.4), fill=green)
        case 2:
            pen.polygon([(x - r, y), (x - r * 0.5, y - r), (x + r * 0.6, y - r * 0.8), (x + r, y)], fill=grey)
        case 3:
            pen.rectangle((x - r * 0.2, y - 2.5 * r, x + r * 0.2, y), fill=grey)
        case _:
            for dx in np.linspace(-0.6, 0.6, 5):
                pen.line((x, y, x + dx * r, y - r), fill=green, width=max(1, side // 128))
