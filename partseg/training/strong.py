"""The strong augmentation that the published training gives photos labelled by the parser.

Colours, grey, blur (SimCLR, arXiv:2002.05709), then three erased rectangles of noise (arXiv:1708.04896), with
the numbers of VLPart's ``build_strong_augmentation``. The operations are those torchvision does with Pillow's
images, and equal to them; done with Pillow alone they do not cost every worker torchvision's import.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

# Factors are drawn from 1 - x to 1 + x; a hue is turned by up to HUE of the circle either way.
BRIGHTNESS = CONTRAST = SATURATION = 0.4
HUE = 0.1
JITTER_CHANCE, GREY_CHANCE, BLUR_CHANCE = 0.8, 0.2, 0.5
BLUR_RADIUS = (0.1, 2.0)  # pixels, standard deviation
# Of each rectangle the chance, the share of the image's area, and the ratio of height to width.
RECTANGLES = (
    (0.7, (0.05, 0.2), (0.3, 3.3)),
    (0.5, (0.02, 0.2), (0.1, 6.0)),
    (0.3, (0.02, 0.2), (0.05, 8.0)),
)
_TRIES = 10  # rectangles that do not fit are drawn anew this often, as torchvision does


def strong(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A strongly changed copy of an image uint8 [H, W, 3]; what is where in it stays the same."""
    image = Image.fromarray(pixels)
    if random.random() < JITTER_CHANCE:
        image = jitter(image, random)
    if random.random() < GREY_CHANCE:
        image = image.convert("L").convert("RGB")
    if random.random() < BLUR_CHANCE:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*BLUR_RADIUS)))
    changed = np.array(image)
    for chance, share, ratio in RECTANGLES:
        if random.random() < chance:
            erase(changed, random, share, ratio)
    return changed


def jitter(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue, in any order."""
    brightness, contrast, saturation = (
        random.uniform(1 - span, 1 + span) for span in (BRIGHTNESS, CONTRAST, SATURATION)
    )
    hue = random.uniform(-HUE, HUE)
    for step in random.permutation(4):
        if step == 0:
            image = ImageEnhance.Brightness(image).enhance(brightness)
        elif step == 1:
            image = ImageEnhance.Contrast(image).enhance(contrast)
        elif step == 2:
            image = ImageEnhance.Color(image).enhance(saturation)
        else:
            image = turn_hue(image, hue)
    return image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the hue of every pixel by this part of the circle, in steps of 1/255."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue) + np.int32(turn * 255)).astype(np.uint8)  # the circle closes at 256
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def erase(
    pixels: NDArray[np.uint8],
    random: np.random.Generator,
    share: tuple[float, float],
    ratio: tuple[float, float],
) -> None:
    """Fill a rectangle of the image [H, W, 3] with noise, in place; none where ten tries do not fit.

    Args:
        pixels: the image.
        random: what draws.
        share: least and largest part of the image's area.
        ratio: least and largest height by width, drawn evenly on a logarithmic scale.
    """
    height, width = pixels.shape[:2]
    for _ in range(_TRIES):
        area = height * width * random.uniform(*share)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            y, x = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            # The published noise is normal around 0 where colours go from 0 to 1, and wraps around as bytes.
            noise = random.standard_normal((h, w, 3), dtype=np.float32) * 255
            pixels[y : y + h, x : x + w] = noise.astype(np.int32).astype(np.uint8)
            return
