"""Pictures of parts: masks tinted over the image, thin outlines and labels that do not collide."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Window = tuple[slice, slice]

_WIDE = 0.75  # of the picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One part to draw.

    Attributes:
        mask: bool [H, W] of the image.
        name: full name, such as "dog:head".
        score: shown beside the name if given.
        filled: whether the mask is tinted, or only its outline drawn.
    """

    mask: npt.NDArray[np.bool_]
    name: str
    score: float | None = None
    filled: bool = True


def palette(names: Iterable[str]) -> dict[str, Colour]:
    """One colour per name, the same in every picture of a report.

    The parts of one object share a range of hues; neighbours in that range differ in brightness.

    Args:
        names: category names; "object:part" or plain.

    Returns:
        name -> (red, green, blue), 0 to 255.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(name.partition(":")[0], []).append(name)
    result: dict[str, Colour] = {}
    for group, members in groups.items():
        start = zlib.crc32(group.encode()) % 360
        for i, name in enumerate(members):
            hue = (start + 250 * i / max(4, len(members))) % 360
            red, green, blue = colorsys.hls_to_rgb(hue / 360, (0.52, 0.64, 0.44)[i % 3], 0.72)
            result[name] = (round(red * 255), round(green * 255), round(blue * 255))
    return result


def draw(
    image: npt.NDArray[np.uint8],
    shapes: Sequence[Shape],
    colours: Mapping[str, Colour],
    *,
    short_side: int = 440,
    opacity: float = 0.5,
    labels: bool = True,
) -> Image.Image:
    """An image with its parts on top.

    Args:
        image: uint8 [H, W, 3].
        shapes: parts; large ones are drawn first, so that small ones stay visible.
        colours: colour of every name in ``shapes``.
        short_side: pixels of the picture's short side, for outlines and letters of even thickness.
        opacity: of the tint inside a mask, 0 to 1.
        labels: whether to write the names.

    Returns:
        The picture.
    """
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    ordered = sorted(shapes, key=lambda s: -int(s.mask.sum()))
    outlines: list[tuple[Window, npt.NDArray[np.bool_], Colour]] = []
    for shape in ordered:
        mask = _smooth(shape.mask, size)
        window = _window(mask)
        mask, view = mask[window], picture[window]
        tint = np.array(colours[shape.name], dtype=np.float32)
        if shape.filled:
            view[mask] = view[mask] * (1 - opacity) + tint * opacity
        edge = mask & ~ndimage.binary_erosion(mask, iterations=2)
        outlines.append((window, edge, colours[shape.name]))
    for window, edge, colour in outlines:
        picture[window][edge] = np.array(colour, dtype=np.float32) * 0.85 + 255 * 0.15
    result = Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))
    if labels:
        _write_labels(result, ordered, colours, scale)
    return result


def _smooth(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask at the size of the picture, corners rounded instead of stepped."""
    fine = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(fine) >= 128


def _window(mask: npt.NDArray[np.bool_]) -> Window:
    """The rows and columns around a mask; outside there is nothing to draw."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.s_[0:0, 0:0]
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _write_labels(
    picture: Image.Image, shapes: Sequence[Shape], colours: Mapping[str, Colour], scale: float
) -> None:
    """One label per part, beside its mask; a label that fits nowhere is left to the legend."""
    font = ImageFont.load_default(size=max(11, round(min(picture.size) * 0.034)))
    pen = ImageDraw.Draw(picture, "RGBA")
    taken: list[Box] = []
    for shape in sorted(shapes, key=lambda s: -(s.score if s.score is not None else s.mask.sum())):
        if not shape.mask.any():
            continue
        text = shape.name.partition(":")[2] or shape.name
        text += "" if shape.score is None else f" {shape.score:.2f}"
        left, top, right, bottom = font.getbbox(text)
        w, h = right - left + 10, bottom - top + 8
        spot = next((b for b in _spots(shape.mask, scale, w, h, picture.size) if _free(b, taken)), None)
        if spot is None:
            continue
        taken.append(spot)
        pen.rounded_rectangle(spot, radius=4, fill=(*_dark(colours[shape.name]), 225))
        pen.text((spot[0] + 5 - left, spot[1] + 4 - top), text, font=font, fill=(255, 255, 255, 255))


def _dark(colour: Colour) -> Colour:
    """A shade white letters can be read on."""
    return (int(colour[0] * 0.5), int(colour[1] * 0.5), int(colour[2] * 0.5))


def _spots(mask: npt.NDArray[np.bool_], scale: float, w: float, h: float, size: tuple[int, int]) -> list[Box]:
    """Places for a label of w × h pixels: around the mask's box first, then on top of the mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x0, x1 = columns[0] * scale, (columns[-1] + 1) * scale
    y0, y1 = rows[0] * scale, (rows[-1] + 1) * scale
    cx, cy = (x0 + x1 - w) / 2, (y0 + y1 - h) / 2
    px, py = _innermost(mask)
    corners = [
        (cx, y0 - h - 3), (cx, y1 + 3), (x1 + 3, cy), (x0 - w - 3, cy),
        (x0, y0 - h - 3), (x1 - w, y0 - h - 3), (x0, y1 + 3), (x1 - w, y1 + 3),
        (px * scale - w / 2, py * scale - h / 2), (x0 + 3, y0 + 3), (x1 - w - 3, y1 - h - 3),
    ]  # fmt: skip
    if x1 - x0 > _WIDE * size[0]:  # background: around it is the edge, or something else
        corners.insert(0, corners[8])
    inside = [
        (x, y) for x, y in corners if x >= 2 and y >= 2 and x + w <= size[0] - 2 and y + h <= size[1] - 2
    ]
    return [(x, y, x + w, y + h) for x, y in inside]


def _innermost(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The x and y deepest inside a mask with pixels, to a sixtieth of its size."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    step = max(1, min(len(rows), len(columns)) // 60)
    cropped = mask[rows[0] : rows[-1] + 1 : step, columns[0] : columns[-1] + 1 : step]
    depth = ndimage.distance_transform_edt(np.pad(cropped, 1))
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(columns[0] + (x - 0.5) * step), float(rows[0] + (y - 0.5) * step)


def _free(box: Box, taken: Sequence[Box]) -> bool:
    return all(box[2] <= t[0] or t[2] <= box[0] or box[3] <= t[1] or t[3] <= box[1] for t in taken)
