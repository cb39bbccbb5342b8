"""The picture of a prediction: masks and names on the image, and a legend below it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from partseg.layout import rle_bbox
from partseg.report import overlays
from partseg.report.overlays import Colour, Shape
from partseg.report.pictures import names_and_colours

if TYPE_CHECKING:
    from partseg.predict.prediction import Prediction

# Pixels of a picture: large enough for labels, and no larger than a screen, whatever the photo.
SHORT_SIDE, LONG_SIDE = (480, 1000), 1800
LEGEND_LINES = 14
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 36), (120, 120, 126)


def draw(prediction: Prediction, *, legend: bool = True) -> Image.Image:
    """The image of a prediction with what was found in it.

    Every object has a colour of its own, which its parts vary. An object with parts is an outline around
    them, and what has no mask is its box.
    """
    size = picture_size(prediction.height, prediction.width)
    pixels = Image.fromarray(prediction.pixels).resize(size, Image.Resampling.BICUBIC)
    names, colours = names_and_colours(prediction.names, prediction.part_of.tolist())
    owners = set(prediction.part_of.tolist())
    shapes = [
        Shape(
            mask=_fitted(prediction, row, size),
            name=name,
            score=float(prediction.scores[row]),
            filled=row not in owners and prediction.rles[row] is not None,
        )
        for row, name in enumerate(names)
    ]
    picture = overlays.draw(np.asarray(pixels), shapes, colours, short_side=min(size))
    return _with_legend(picture, _groups(prediction, names, colours)) if legend else picture


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of the picture of an image."""
    smallest, largest = SHORT_SIDE
    short = min(height, width)
    scale = min(min(max(short, smallest), largest) / short, LONG_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fitted(prediction: Prediction, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask, or a box, at the size of the picture; only what is around it is resized."""
    result = np.zeros((size[1], size[0]), np.bool_)
    rle = prediction.rles[row]
    if rle is None:
        x0, x1 = (round(value * size[0] / prediction.width) for value in prediction.boxes[row, ::2].tolist())
        y0, y1 = (
            round(value * size[1] / prediction.height) for value in prediction.boxes[row, 1::2].tolist()
        )
        result[max(0, y0) : y1, max(0, x0) : x1] = True
        return result
    x, y, w, h = rle_bbox(rle, prediction.height)
    if not w * h:
        return result
    (left, right), (x0, x1) = _reach(x, x + w, prediction.width, size[0])
    (top, bottom), (y0, y1) = _reach(y, y + h, prediction.height, size[1])
    first_x, first_y = math.floor(left), math.floor(top)
    cut = prediction.mask(row)[first_y : math.ceil(bottom), first_x : math.ceil(right)]
    fine = Image.fromarray(np.ascontiguousarray(cut).astype(np.uint8) * 255).resize(
        (x1 - x0, y1 - y0),
        Image.Resampling.BICUBIC,
        box=(left - first_x, top - first_y, right - first_x, bottom - first_y),
    )
    result[y0:y1, x0:x1] = np.asarray(fine) >= 128
    return result


def _reach(low: int, high: int, pixels: int, size: int) -> tuple[tuple[float, float], tuple[int, int]]:
    """Where low..high of an image lies in a picture, with some pixels around it: in both."""
    scale = size / pixels
    first, last = max(0, math.floor(low * scale) - 3), min(size, math.ceil(high * scale) + 3)
    return (first / scale, min(float(pixels), last / scale)), (first, last)


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    colour: Colour | None  # None: a remark without a swatch


def _groups(prediction: Prediction, names: Sequence[str], colours: dict[str, Colour]) -> list[list[_Entry]]:
    """Per object itself and its parts; parts without an object are groups of their own."""
    groups = []
    for row, owner in enumerate(prediction.part_of.tolist()):
        if owner >= 0:
            continue
        parts = Counter(names[part] for part in prediction.parts(row))
        entries = [_Entry(f"{names[row]} {prediction.scores[row]:.2f}", colours[names[row]])]
        for name, count in parts.items():
            short = name.partition(":")[2]
            entries.append(_Entry(f"{short} x{count}" if count > 1 else short, colours[name]))
        groups.append(entries)
    return groups


def _with_legend(picture: Image.Image, groups: list[list[_Entry]]) -> Image.Image:
    """The picture with a list of its objects and their parts below."""
    size = max(12, round(min(picture.size) * 0.026))
    font, line = ImageFont.load_default(size=size), round(1.7 * size)
    width = max(picture.width, 24 * size)
    lines = _lines(groups, font, size, width)
    if not lines:
        lines = [[(size // 2, _Entry("nothing found", None))]]
    if len(lines) > LEGEND_LINES:
        left = len(lines) - LEGEND_LINES + 1
        lines = [*lines[: LEGEND_LINES - 1], [(size // 2, _Entry(f"and {left} more lines", None))]]
    page = Image.new("RGB", (width, picture.height + len(lines) * line + size // 2), _PAPER)
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for place, row in enumerate(lines):
        y = picture.height + size // 4 + place * line + line / 2
        for x, entry in row:
            ink, shift = _FAINT, 0
            if entry.colour is not None:
                ink, shift = _INK, round(1.3 * size)
                pen.rounded_rectangle((x, y - size / 2, x + size, y + size / 2), radius=3, fill=entry.colour)
            pen.text((x + shift, y), entry.text, font=font, fill=ink, anchor="lm")
    return page


def _lines(
    groups: list[list[_Entry]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: int,
    width: int,
) -> list[list[tuple[int, _Entry]]]:
    """Lines of entries with their x. A group that does not fit on a line starts one and goes on indented."""
    lines: list[list[tuple[int, _Entry]]] = []
    x = width
    for group in groups:
        steps = [round(font.getlength(entry.text) + 2.3 * size) for entry in group]
        if x + sum(steps) > width:
            lines.append([])
            x = size // 2
        for place, (entry, step) in enumerate(zip(group, steps, strict=True)):
            if place and x + step > width:
                lines.append([])
                x = 2 * size
            lines[-1].append((x, entry))
            x += step
        # After an indented line comes a new one: what stands on it would seem to belong to its group.
        x = width if lines[-1][0][0] == 2 * size else x + size
    return lines
