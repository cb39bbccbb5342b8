"""Image files whose pixels are labels: PNG and TIFF to runs and back."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from partseg.errors import SourceError
from partseg.layout.runs import Runs, label_map_to_runs

_BLOCK = 16  # rows that are turned at once; 1024 x 2048 int32 take 3.8 ms instead of 7.4
_PNG_MODES = {("|u1", 2): (8, 0), ("|u1", 3): (8, 2), (">u2", 2): (16, 0)}  # bits, PNG colour type
_UP = 2  # PNG filter: the difference to the row above, mostly zeros in a label map


def read_colour_ids(path: Path) -> Runs:
    """Runs of a colour PNG whose pixels mean ``R + 256 * G + 65536 * B`` (COCO panoptic).

    Raises:
        SourceError: the file is missing, damaged, or has no three channels.
    """
    image = _load(path)
    if image.mode not in ("RGB", "RGBA"):
        raise SourceError(
            f"the map has mode {image.mode}, not RGB", where=path, fix="use the PNG files of the release"
        )
    if image.mode == "RGBA":
        image = image.convert("RGB")
    # four bytes per pixel, the last one always the same: one little-endian number that changes with the id
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), "<u4").reshape(image.height, image.width)
    runs = map_to_runs(pixels)
    return replace(runs, labels=runs.labels & 0xFFFFFF)


def read_label_image(path: Path) -> Runs:
    """Runs of an image with one channel of integers (panoptic-parts TIFF, semantic PNG).

    Raises:
        SourceError: the file is missing, damaged, or has several channels or fractions.
    """
    image = _load(path)
    if image.mode not in ("L", "I", "P") and not image.mode.startswith("I;16"):
        raise SourceError(
            f"the map has mode {image.mode}, not one channel of integers",
            where=path,
            fix="use the files of the release",
        )
    return map_to_runs(np.asarray(image))


def map_to_runs(labels: NDArray[Any]) -> Runs:
    """Column-major runs of a label map [H, W]; as ``label_map_to_runs``, faster on large maps."""
    height, width = labels.shape
    columns = np.empty((width, height), labels.dtype)
    for row in range(0, height, _BLOCK):
        columns[:, row : row + _BLOCK] = labels[row : row + _BLOCK].T
    return label_map_to_runs(columns.T)


def runs_to_rows(runs: Runs, values: NDArray[Any]) -> NDArray[Any]:
    """A map [H, W], row after row in memory, of the runs with ``values`` [R] in place of their labels."""
    columns = np.repeat(values, runs.lengths).reshape(runs.width, runs.height)
    rows = np.empty((runs.height, runs.width), values.dtype)
    for row in range(0, runs.height, _BLOCK):
        rows[row : row + _BLOCK] = columns[:, row : row + _BLOCK].T
    return rows


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write uint8 [H, W], uint16 [H, W] or uint8 [H, W, 3] as PNG, several times faster than pillow."""
    array = pixels.astype(">u2") if pixels.dtype == np.uint16 else pixels
    bits, colour = _PNG_MODES[array.dtype.str, array.ndim]
    height, width = array.shape[:2]
    data = np.ascontiguousarray(array).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, data.shape[1] + 1), np.uint8)
    rows[:, 0], rows[:1, 1:] = _UP, data[:1]
    np.subtract(data[1:], data[:-1], out=rows[1:, 1:])
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        stream.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)))
        stream.write(_chunk(b"IDAT", isal_zlib.compress(rows, 1)))
        stream.write(_chunk(b"IEND", b""))


def write_colour_ids(path: Path, runs: Runs) -> None:
    """Write runs whose labels are below 2**24 as a colour PNG; see :func:`read_colour_ids`."""
    ids = runs_to_rows(runs, runs.labels.astype("<u4"))
    write_png(path, ids.view(np.uint8).reshape(runs.height, runs.width, 4)[..., :3])


def write_int32_tiff(path: Path, runs: Runs) -> None:
    """Write the labels of runs as an int32 TIFF, deflated."""
    pixels = runs_to_rows(runs, runs.labels.astype(np.int32))
    Image.fromarray(pixels).save(path, format="TIFF", compression="tiff_adobe_deflate")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _load(path: Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise SourceError("the map is missing", where=path, fix="check the folder of the raw data") from None
    # pillow lets through whatever its many parsers trip over
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"the map is damaged ({reason})", where=path, fix="download or extract it again"
        ) from error
