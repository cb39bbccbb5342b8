"""Pictures of how an image got its part labels: what was lent, what resembles what, what was kept.

A part has one colour in all panels of an image, whatever object it belongs to there.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from partseg.report.overlays import Colour, Shape, draw

if TYPE_CHECKING:
    from partseg.parsing.parts import Transfer

SIDE = 320
"""Pixels of a panel's height."""

_PATCHES = 0.65  # opacity of the colours of patches
_FADED = (0.62, 0.3)  # contrast of grey photos: patches that may belong to a part, and all others
_PAPER = 225  # what the rest fades to


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One picture and the few words below it."""

    title: str
    picture: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptPart:
    """A part as it is written to the dataset.

    Attributes:
        name: "object:part".
        box_xywh: pixels of the image.
        mask: bool [H, W], or None.
        confidence: 0 to 1.
    """

    name: str
    box_xywh: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lender:
    """An annotated base image.

    Attributes:
        name: of its file.
        image: uint8 [H, W, 3].
        parts: masks of its parts that it may lend.
        names: name of each part on its grid of patches.
    """

    name: str
    image: NDArray[np.uint8]
    parts: Sequence[Shape]
    names: Sequence[str]


def part_of(name: str) -> str:
    """The part in a name: "head" of "dog:head"."""
    return name.partition(":")[2] or name


def part_colours(names: Iterable[str]) -> dict[str, Colour]:
    """A colour for each name; the same for all names of the same part, in either case.

    Hues are as far apart as the number of parts allows, neighbours differ in brightness.
    """
    names = list(names)
    words = sorted({part_of(name).lower() for name in names})
    colours = {}
    for place, word in enumerate(words):
        lightness = (0.5, 0.62, 0.42)[place % 3]
        red, green, blue = colorsys.hls_to_rgb(0.02 + place / max(1, len(words)), lightness, 0.78)
        colours[word] = (round(red * 255), round(green * 255), round(blue * 255))
    return {name: colours[part_of(name).lower()] for name in names}


def detector_panels(image: NDArray[np.uint8], kept: Sequence[KeptPart]) -> list[Panel]:
    """An image that the detector looked at: itself, and the parts it found.

    Args:
        image: uint8 [H, W, 3].
        kept: its parts.
    """
    colours = part_colours(part.name for part in kept)
    shapes = [
        Shape(
            mask=_box_mask(part.box_xywh, image.shape[:2]) if part.mask is None else part.mask,
            name=part.name,
            score=part.confidence,
            filled=part.mask is not None,
        )
        for part in kept
    ]
    return [
        Panel(title="image", picture=_drawn(image, [], {})),
        Panel(
            title=f"{_count(len(kept), 'part')} detected",
            picture=_drawn(image, shapes, colours),
        ),
        Panel(title="their boxes", picture=_boxes(image, kept, colours)),
    ]


def transfer_panels(
    image: NDArray[np.uint8],
    found: Transfer,
    foreground: NDArray[np.bool_],
    lenders: Sequence[Lender],
    kept: Sequence[KeptPart],
) -> list[Panel]:
    """An image that parts were transferred to, in four steps.

    Args:
        image: uint8 [H, W, 3].
        found: its transfer.
        foreground: patches that may belong to a part, bool [h, w].
        lenders: the base images of the transfer; the first is drawn.
        kept: the parts that are written.
    """
    colours = part_colours(
        [
            *found.names,
            *(part.name for part in kept),
            *(name for one in lenders for name in (*one.names, *(shape.name for shape in one.parts))),
        ]
    )
    panels = []
    if lenders:
        first = lenders[0]
        panels += [
            Panel(
                title="base image and its parts",
                picture=_drawn(first.image, first.parts, colours),
            ),
            Panel(
                title="patches by what they resemble"
                + (f" in the first of {len(lenders)}" if len(lenders) > 1 else ""),
                picture=correspondences(image, found, first.names, foreground, colours),
            ),
        ]
    masks = found.moved.patches.cpu().numpy()
    confirmed = [match >= 0 for match in found.matches.tolist()]
    moved = [
        Shape(mask=mask, name=name, filled=sure)
        for mask, name, sure in zip(_at(masks, image.shape[:2]), found.names, confirmed, strict=True)
        if mask.any()
    ]
    title = f"{_count(len(moved), 'part')} transferred"
    unsure = sum(not shape.filled for shape in moved)
    panels += [
        Panel(
            title=title + (f"; outlines: {unsure} not confirmed" if unsure else ""),
            picture=_drawn(image, moved, colours),
        ),
        Panel(
            title=f"{_count(len(kept), 'box')} kept, with confidence", picture=_boxes(image, kept, colours)
        ),
    ]
    return panels


def correspondences(
    image: NDArray[np.uint8],
    found: Transfer,
    names: Sequence[str],
    foreground: NDArray[np.bool_],
    colours: Mapping[str, Colour],
) -> Image.Image:
    """Every patch of the foreground in the colour of the part that its partner in the base image lies in.

    Where parts lie on one another, the smallest one counts. Patches that resemble no part are grey, the
    background is fainter still.

    Args:
        image: uint8 [H, W, 3].
        found: its transfer; the first lender is drawn.
        names: names of that one's parts.
        foreground: bool [h, w].
        colours: of these names.
    """
    grids = found.lenders[0].grids.flatten(1).cpu().numpy()
    partners = found.partners[0].cpu().numpy()
    tints = np.zeros((grids.shape[1], 3))
    for part in np.argsort(-grids.sum(axis=1), kind="stable").tolist():
        tints[grids[part]] = colours[names[part]]
    lent = np.flatnonzero(grids.any(axis=0))
    resembles = np.isin(partners, lent).reshape(foreground.shape) & foreground
    photo = np.asarray(_drawn(image, [], {}), np.float64)
    light = photo.mean(axis=2, keepdims=True)
    tint = _fine(tints[partners].reshape(*foreground.shape, 3).astype(np.uint8), photo)
    inside, possible = (
        _fine(mask.astype(np.uint8), photo)[..., None] > 0 for mask in (resembles, foreground)
    )
    contrast = np.where(possible, *_FADED)
    grey = light * contrast + _PAPER * (1 - contrast)
    shown = np.where(inside, light * (1 - _PATCHES) + tint * _PATCHES, grey)
    return Image.fromarray(shown.round().clip(0, 255).astype(np.uint8))


def _fine(patches: NDArray[np.uint8], picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of patches at the size of a picture, their edges sharp."""
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(Image.fromarray(patches).resize(size, Image.Resampling.NEAREST), np.float64)


def _boxes(image: NDArray[np.uint8], kept: Sequence[KeptPart], colours: Mapping[str, Colour]) -> Image.Image:
    shapes = [
        Shape(
            mask=_box_mask(part.box_xywh, image.shape[:2]),
            name=part.name,
            score=part.confidence,
            filled=False,
        )
        for part in kept
    ]
    return _drawn(image, shapes, colours)


def _drawn(image: NDArray[np.uint8], shapes: Sequence[Shape], colours: Mapping[str, Colour]) -> Image.Image:
    """Shapes over an image, at the height that all panels have."""
    height, width = image.shape[:2]
    return draw(image, shapes, colours, short_side=max(1, round(SIDE * min(1, width / height))), opacity=0.42)


def _box_mask(box: Sequence[float], size: tuple[int, ...]) -> NDArray[np.bool_]:
    x, y, w, h = box
    mask = np.zeros(size, np.bool_)
    top, left = max(0, round(y)), max(0, round(x))
    mask[top : max(top + 1, round(y + h)), left : max(left + 1, round(x + w))] = True
    return mask


def _at(masks: NDArray[np.bool_], size: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """Masks on a grid of patches in pixels of the image."""
    return [
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
        >= 128
        for mask in masks
    ]


def _count(number: int, thing: str) -> str:
    plural = f"{thing}es" if thing.endswith("x") else f"{thing}s"
    return f"{number} {thing if number == 1 else plural}"
