"""Pictures of annotated images: objects outlined, their parts tinted in shades of the object's colour."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from partseg.layout import Category, ImageRecord, rle_to_mask
from partseg.report.overlays import Colour, Shape, draw

_GREY = 205
_PAPER = (255, 255, 255)
_INK = (32, 32, 36)
_GOLDEN_ANGLE = 137.508  # degrees: neighbours in the list of objects get hues far apart
_SPREAD = 44  # degrees of hue the parts of one object share


def scene(
    image: NDArray[np.uint8],
    record: ImageRecord,
    categories: Mapping[int, Category],
    *,
    kinds: Collection[str] = ("object", "part", "stuff"),
    short_side: int = 440,
) -> Image.Image:
    """An image with the masks of its annotations.

    Parts are tinted, and an object that has parts in the picture is an outline around them. Every object has
    a colour of its own, which its parts vary. An annotation without a mask is its box.

    Args:
        image: uint8 [H, W, 3].
        record: its annotations.
        categories: by id.
        kinds: what to draw.
        short_side: pixels of the picture.
    """
    chosen = [
        row for row, category in enumerate(record.category_ids.tolist()) if categories[category].kind in kinds
    ]
    parents = record.parent_rows.tolist()
    owners = {parents[row] for row in chosen}
    names, colours = names_and_colours(
        [categories[category].name for category in record.category_ids.tolist()], parents
    )
    shapes = [
        Shape(
            mask=shape_mask(record, row),
            name=names[row],
            filled=row not in owners and record.rles[row] is not None,
        )
        for row in chosen
    ]
    return draw(image, shapes, colours, short_side=short_side)


def grey(record: ImageRecord) -> NDArray[np.uint8]:
    """A blank image of the record's size, for where the photo is not at hand."""
    return np.full((record.height, record.width, 3), _GREY, np.uint8)


def shape_mask(record: ImageRecord, row: int) -> NDArray[np.bool_]:
    """The mask of an annotation, bool [H, W]; that of its box where it has none."""
    rle = record.rles[row]
    if rle is not None:
        return rle_to_mask(rle, record.height, record.width)
    x, y, w, h = record.boxes_xywh[row]
    mask = np.zeros((record.height, record.width), np.bool_)
    mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
    return mask


def title(record: ImageRecord, categories: Mapping[int, Category]) -> str:
    """Name of an image and how much is annotated in it."""
    kinds = Counter(categories[category].kind for category in record.category_ids.tolist())
    counts = [
        f"{kinds[kind]} {kind if kinds[kind] == 1 or kind == 'stuff' else kind + 's'}"
        for kind in ("object", "part", "stuff")
        if kinds[kind]
    ]
    return f"{record.source_key} · {', '.join(counts) or 'no annotations'}"


def with_title(picture: Image.Image, text: str) -> Image.Image:
    """The picture with one line above it."""
    size = max(12, round(min(picture.size) * 0.036))
    font, strip = ImageFont.load_default(size=size), 2 * size
    page = Image.new("RGB", (picture.width, picture.height + strip), _PAPER)
    page.paste(picture, (0, strip))
    pen = ImageDraw.Draw(page)
    pen.text((6, strip / 2), fitting(text, font, picture.width - 12), fill=_INK, font=font, anchor="lm")
    return page


def sheet(pictures: Sequence[tuple[Image.Image, str]], columns: int) -> Image.Image:
    """A contact sheet: pictures in rows of ``columns``, each with its title below it.

    Args:
        pictures: at least one picture with its title.
        columns: pictures per row.
    """
    cell, gap, font = 360, 12, ImageFont.load_default(size=15)  # a picture is fitted into a square
    step_x, step_y = cell + gap, cell + gap + 24
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), _PAPER)
    pen = ImageDraw.Draw(page)
    for place, (picture, text) in enumerate(pictures):
        x, y = gap + place % columns * step_x, gap + place // columns * step_y
        scale = cell / max(picture.size)
        small = picture.resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
            Image.Resampling.LANCZOS,
        )
        page.paste(small, (x + (cell - small.width) // 2, y + (cell - small.height) // 2))
        pen.text((x, y + cell + 15), fitting(text, font, cell), fill=_INK, font=font, anchor="lm")
    return page


def names_and_colours(
    categories: Sequence[str], parents: Sequence[int]
) -> tuple[list[str], dict[str, Colour]]:
    """A name for everything in a picture ("dog 2", "dog 2:head"), and a colour for every name.

    Args:
        categories: name of the category of each.
        parents: row of the object that each is a part of; -1 where it is of none.
    """
    roots = [row for row, parent in enumerate(parents) if parent < 0]
    several, met = Counter(categories[row] for row in roots), Counter[str]()
    # A part without an object must not be called what one with an object is called.
    taken = {categories[row] for row, parent in enumerate(parents) if parent >= 0}
    names, hues = list(categories), dict[str, float]()
    for row in roots:
        name = categories[row]
        met[name] += 1
        names[row] = f"{name} {met[name]}" if several[name] > 1 or name in taken else name
        hues[names[row]] = 205 + _GOLDEN_ANGLE * len(hues)
    for row, parent in enumerate(parents):
        if parent >= 0:
            names[row] = f"{names[parent]}:{categories[row].partition(':')[2] or categories[row]}"
    colours = {label: _colour(hue, 0.5) for label, hue in hues.items()}
    for owner, hue in hues.items():
        parts = sorted({name for name in names if name.startswith(f"{owner}:") and name not in hues})
        for place, part in enumerate(parts):
            turn = _SPREAD * (place / max(1, len(parts) - 1) - 0.5)
            colours[part] = _colour(hue + turn, (0.42, 0.62, 0.52)[place % 3])
    return names, colours


def _colour(hue: float, lightness: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 360 / 360, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of the text as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
