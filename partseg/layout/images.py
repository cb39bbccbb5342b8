"""Image files: decoding, and their size as people see them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from partseg.errors import SourceError

_ORIENTATION = 0x0112  # EXIF tag
_TURNED = {5, 6, 7, 8}  # values that swap height and width


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The image as uint8 [H, W, 3] RGB, its EXIF orientation applied.

    Any mode Pillow reads: grey, palette, CMYK; 16 bits per channel are scaled to 8. Transparency is dropped:
    the stored colours count.

    Raises:
        SourceError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise SourceError(
            "the image is missing", where=path, fix="check the folder of the raw data"
        ) from None
    except Exception as error:  # Pillow passes on whatever a format's reader stumbles over
        raise _damaged(path, error) from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An open image as :func:`read_rgb` gives it."""
    return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert("RGB"))


def image_size(content: bytes, where: object) -> tuple[int, int]:
    """Height and width in pixels of an encoded image, its EXIF orientation applied; only the header is read.

    Raises:
        SourceError: the bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise _damaged(where, error) from error
    return (width, height) if turned else (height, width)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits scaled to 8, which Pillow would clip; colours of 16 bits it scales itself."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    # The high byte, as Pillow does with colours. Mode I holds 16 bits where a format has no other mode.
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def _damaged(where: object, error: Exception) -> SourceError:
    if isinstance(error, UnidentifiedImageError):  # its own text names an address in memory
        reason = "not a known image format"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SourceError(f"the image is damaged ({reason})", where=where, fix="download or extract it again")
