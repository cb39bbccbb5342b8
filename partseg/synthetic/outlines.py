"""Masks as polygons, the way COCO writes outlines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_JITTER = 0.12  # px; with cut corners, a line still passes every pixel centre on its own side


def outlines(mask: Mask, random: np.random.Generator) -> list[list[float]]:
    """Outer outlines of the pieces of a mask, largest first; holes are lost, as polygons cannot have them.

    The outlines pass between the centres of the pixels inside and outside, at fractional coordinates with two
    decimals. Pieces that touch at a corner only are apart.

    Args:
        mask: bool [H, W], not empty.
        random: moves the corners a little, as a person's hand does.

    Returns:
        x, y, x, y, ... of each outline in pixels, where (0, 0) is the upper left corner of the image.
    """
    limits = (mask.shape[1], mask.shape[0])
    found = [loop for loop in _loops(mask) if _signed_area(loop) > 0]
    found.sort(key=lambda loop: -abs(_signed_area(loop)))
    polygons = []
    for loop in found:
        middles = _without_straight(_midpoints(loop))
        moved = np.clip(middles + random.uniform(-_JITTER, _JITTER, middles.shape), 0, limits)
        polygons.append(np.round(moved, 2).ravel().tolist())
    return polygons


def polygons_area(polygons: list[list[float]]) -> float:
    """Area in square pixels, as COCO states it: of the polygons, not of the pixels."""
    return float(sum(abs(_signed_area(np.reshape(polygon, (-1, 2)))) for polygon in polygons))


def polygons_bbox(polygons: list[list[float]]) -> list[float]:
    """Box x, y, w, h around the polygons, rounded to two decimals as in COCO."""
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(value), 2) for value in (*low, *(high - low))]


def _loops(mask: Mask) -> list[NDArray[np.float64]]:
    """Closed loops along pixel edges, the inside always on the right hand."""
    inside = np.pad(mask, 1)
    ways: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # one unit edge for each side of a pixel whose neighbour there is outside: start and direction
    sides = (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    )
    for (down, right), (start_x, start_y), direction in sides:
        neighbour = np.roll(inside, (-down, -right), axis=(0, 1))
        rows, columns = np.nonzero(inside & ~neighbour)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            ways.setdefault((column - 1 + start_x, row - 1 + start_y), []).append(direction)
    loops = []
    while ways:
        start = min(ways)
        at, heading, loop = start, ways[start][0], []
        while at in ways:
            loop.append(at)
            choices = ways[at]
            right_turn = (-heading[1], heading[0])
            heading = right_turn if len(choices) > 1 and right_turn in choices else choices[0]
            choices.remove(heading)
            if not choices:
                del ways[at]
            at = (at[0] + heading[0], at[1] + heading[1])
            if at == start:
                break
        loops.append(np.array(loop, np.float64))
    return loops


def _midpoints(loop: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (loop + np.roll(loop, -1, axis=0)) / 2
    return middles


def _without_straight(points: NDArray[np.float64]) -> NDArray[np.float64]:
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners: NDArray[np.float64] = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners


def _signed_area(points: NDArray[np.float64]) -> float:
    """Positive where the points go round clockwise on the screen."""
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
