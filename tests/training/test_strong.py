from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from partseg.training import strong as module
from partseg.training.strong import erase, jitter, strong, turn_hue


def photo(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Scripted:
    """Draws what it was told."""

    def __init__(self, order: list[int], *numbers: float) -> None:
        self.order, self.numbers = order, list(numbers)

    def uniform(self, low: float, high: float) -> float:
        value = self.numbers.pop(0)
        assert low <= value <= high
        return value

    def permutation(self, count: int) -> list[int]:
        assert sorted(self.order) == list(range(count))
        return self.order


@pytest.mark.parametrize("turn", [-0.1, -0.031, 0.0, 0.002, 0.099])
def test_hue_is_turned_as_torchvision_does(turn: float) -> None:
    image = Image.fromarray(photo())
    np.testing.assert_array_equal(np.asarray(turn_hue(image, turn)), np.asarray(F.adjust_hue(image, turn)))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_colours_change_as_torchvision_does(order: list[int]) -> None:
    image = Image.fromarray(photo())
    factors = (0.7, 1.35, 0.61, -0.08)
    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    expected = image
    for step in order:
        expected = changes[step](expected, factors[step])
    got = jitter(image, Scripted(order, *factors))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_it_depends_on_the_random_numbers_alone_and_leaves_the_image() -> None:
    pixels = photo()
    first = strong(pixels, np.random.default_rng(1))
    np.testing.assert_array_equal(strong(pixels, np.random.default_rng(1)), first)
    np.testing.assert_array_equal(pixels, photo())
    assert first.shape == pixels.shape
    assert len({strong(pixels, np.random.default_rng(seed)).tobytes() for seed in range(20)}) > 15


def test_every_change_comes_as_often_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    count, pixels, jittered, erased, grey = 2000, photo(24, 24), [], [], []
    monkeypatch.setattr(module, "jitter", lambda image, _: jittered.append(1) or image)
    monkeypatch.setattr(module, "erase", lambda *_: erased.append(1))
    for seed in range(count):
        changed = strong(pixels, np.random.default_rng(seed))
        grey.append((changed[..., 0] == changed[..., 2]).all())
    spread = 4 * (0.25 / count) ** 0.5
    assert abs(len(jittered) / count - 0.8) < spread
    assert abs(np.mean(grey) - 0.2) < spread
    assert abs(len(erased) / count - (0.7 + 0.5 + 0.3)) < 2 * spread


def test_rectangles_of_noise() -> None:
    areas, ratios = [], []
    for seed in range(300):
        pixels = np.full((200, 300, 3), 7, np.uint8)
        erase(pixels, np.random.default_rng(seed), (0.05, 0.2), (0.3, 3.3))
        rows, columns = np.nonzero((pixels != 7).any(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        inside = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (inside != 7).mean() > 0.99  # nothing but noise, of which one value in 256 is a 7
        areas.append(height * width / 60_000)
        ratios.append(height / width)
        assert inside.min() == 0  # it wraps around instead of being cut off at the ends,
        assert inside.max() == 255
        assert 0.4 < (inside < 128).mean() < 0.62  # where a third to a half would pile up
    assert min(areas) > 0.045
    assert max(areas) < 0.21
    assert abs(np.mean(areas) - 0.125) < 0.01
    assert min(ratios) > 0.28
    assert max(ratios) < 3.5
    assert abs(np.mean(np.log(ratios))) < 0.15


def test_a_rectangle_that_never_fits_is_left_out() -> None:
    pixels = photo(4, 400)
    before = pixels.copy()
    erase(pixels, np.random.default_rng(0), (0.15, 0.2), (3.0, 8.0))
    np.testing.assert_array_equal(pixels, before)


def test_the_rest_of_the_pixels_survives_torchvisions_detour() -> None:
    # The published code goes to floats in 0..1 and back around the erasing; that must not move a byte.
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    there = v2.functional.to_dtype(v2.functional.to_image(Image.fromarray(pixels)), scale=True)
    np.testing.assert_array_equal(np.asarray(F.to_pil_image(there)), pixels)
