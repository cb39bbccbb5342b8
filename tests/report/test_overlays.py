from __future__ import annotations

import numpy as np

from partseg.report.overlays import Shape, draw, palette


def square(x: int, y: int, side: int, size: int = 60) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_colours_are_stable_and_differ_within_an_object() -> None:
    names = [f"dog:{part}" for part in ("head", "ear", "leg", "tail", "torso", "neck", "nose")]
    colours = palette(names)
    assert len(set(colours.values())) == len(names)
    assert palette(reversed(names)) == colours


def test_masks_are_tinted_and_the_rest_is_left_alone() -> None:
    image = np.full((60, 60, 3), 128, np.uint8)
    colours = {"dog:head": (255, 0, 0)}
    picture = np.asarray(
        draw(image, [Shape(mask=square(20, 30, 20), name="dog:head")], colours, short_side=240)
    )
    assert picture.shape == (240, 240, 3)
    red, green, _ = picture[180, 120].tolist()
    assert red > 170
    assert green < 80
    assert picture[230, 10].tolist() == [128, 128, 128]


def test_labels_never_cover_each_other() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    shapes = [Shape(mask=square(25, 25, 8), name=f"p{i}", score=0.5) for i in range(40)]
    colours = palette(s.name for s in shapes)
    # More labels than there is room for: some are left out, none is drawn over another or outside.
    picture = draw(image, shapes, colours, short_side=200)
    assert picture.size == (200, 200)


def test_a_picture_without_parts_is_the_image() -> None:
    image = np.full((20, 40, 3), 77, np.uint8)
    assert np.unique(np.asarray(draw(image, [], {}, short_side=100))).tolist() == [77]
    empty = Shape(mask=np.zeros((20, 40), bool), name="a")
    assert np.unique(np.asarray(draw(image, [empty], {"a": (1, 2, 3)}, short_side=100))).tolist() == [77]
