"""Variables of MATLAB files (MAT 5), as scipy reads them but several times faster.

Nearly all of scipy's time goes into inflating the file. What is left is a short walk over the data elements
("MAT-File Format", MathWorks, chapter 1). Only what annotation files hold is read: struct arrays, text and
real numbers. Files of other versions or byte orders are left to scipy; damaged ones are not, because scipy
can crash on them.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partseg.datasets.formats.inflate import inflate

_HEADER = 128  # bytes of free text, then version and byte order
_VERSION = b"\x00\x01IM"
# Types of data elements.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {
    number: np.dtype(code)
    for number, code in (
        *((1, "i1"), (2, "u1"), (3, "<i2"), (4, "<u2"), (5, "<i4"), (6, "<u4")),
        *((7, "<f4"), (9, "<f8"), (12, "<i8"), (13, "<u8")),
    )
}
_ENCODINGS = {1: "ascii", 2: "ascii", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
# An array's head without a name: flags, dimensions and name, each with its tag.
_PLAIN_HEAD = struct.Struct("<6I2i2I")
# Classes of arrays, and a bit of their flags.
_STRUCT, _CHAR, _FIRST_NUMBER, _LAST_NUMBER = 2, 4, 6, 15
_COMPLEX = 0x08

_Element = tuple[int, int, int, int]  # type, first byte, end, first byte of the next element


def load_variable(content: bytes, name: str) -> NDArray[Any]:
    """What ``scipy.io.loadmat`` gives for the variable ``name``; numbers may be read-only views.

    Args:
        content: the whole file.
        name: of the variable.

    Raises:
        Exception: the file is damaged, or has no such variable, or this holds something else. Of which type
            is not only up to this module, but to scipy and ISA-L as well.
    """
    if content[_HEADER - 4 : _HEADER] != _VERSION or not all(content[:4]):  # a zero there: version 4
        file: Any = io.BytesIO(content)  # scipy's stubs only know paths
        from scipy.io import loadmat  # a quarter of a second, which every `partseg plan` would pay

        array: NDArray[Any] = loadmat(file, variable_names=[name])[name]
        return array
    at = _HEADER
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        following = at + 8 + size
        _expect(following <= len(content))
        if kind == _COMPRESSED:
            reader = _Reader(inflate(content[at + 8 : following]))
        else:
            reader = _Reader(np.frombuffer(content[at:following], np.uint8))
        _, start, stop, end = reader.element(0, len(reader.octets), _MATRIX)
        _expect(end == len(reader.octets))
        if reader.head(start, stop)[2] == name.encode():
            return reader.matrix(start, stop)
        at = following
    raise KeyError(name)


def _expect(sound: bool) -> None:
    if not sound:
        raise ValueError("not a sound MAT file")


class _Reader:
    """Reads the data elements in some bytes [N], of which arrays of numbers are views."""

    def __init__(self, octets: NDArray[np.uint8]) -> None:
        self.octets, self.data = octets, octets.data

    def element(self, at: int, end: int, wanted: int | None = None) -> _Element:
        """The data element at ``at``, which lies before ``end``."""
        kind, size = struct.unpack_from("<II", self.data, at)
        if kind >> 16:  # up to four bytes fit into the tag: the upper half of the type is their number
            size, kind = kind >> 16, kind & 0xFFFF
            start, following = at + 4, at + 8
            _expect(size <= 4)
        else:
            start, following = at + 8, at + 8 + (size + 7) // 8 * 8
        _expect(following <= end and wanted in (None, kind))
        return kind, start, start + size, following

    def head(self, at: int, end: int) -> tuple[int, tuple[int, ...], bytes, int]:
        """Flags and class, dimensions and name of a matrix; where its values begin."""
        if at + _PLAIN_HEAD.size <= end:  # nearly all: no name, two dimensions
            head = _PLAIN_HEAD.unpack_from(self.data, at)
            if head[:2] == (_UINT32, 8) and head[4:6] == (_INT32, 8) and head[8:] == (_INT8, 0):
                _expect(head[6] >= 0 and head[7] >= 0)
                return head[2], head[6:8], b"", at + _PLAIN_HEAD.size
        _, start, stop, at = self.element(at, end, _UINT32)
        _expect(stop - start == 8)
        (flags,) = struct.unpack_from("<I", self.data, start)
        _, start, stop, at = self.element(at, end, _INT32)
        dimensions = struct.unpack_from(f"<{(stop - start) // 4}i", self.data, start)
        _expect(len(dimensions) >= 2 and min(dimensions) >= 0)
        _, start, stop, at = self.element(at, end, _INT8)
        return flags, dimensions, bytes(self.data[start:stop]), at

    def matrix(self, at: int, end: int) -> NDArray[Any]:
        """The array that the matrix between ``at`` and ``end`` holds."""
        if at == end:
            return np.empty((1, 0))
        flags, dimensions, _, at = self.head(at, end)
        kind = flags & 0xFF
        _expect(not flags >> 8 & _COMPLEX)
        if kind == _STRUCT:
            return self._struct(at, end, dimensions)
        if kind == _CHAR:
            return self._text(at, end, dimensions)
        _expect(_FIRST_NUMBER <= kind <= _LAST_NUMBER)
        return self._numbers(at, end, dimensions)

    def _struct(self, at: int, end: int, dimensions: tuple[int, ...]) -> NDArray[Any]:
        """Names of the fields, all of the same length, then the values of one struct after another."""
        _, start, stop, at = self.element(at, end, _INT32)
        _expect(stop - start == 4)
        (length,) = struct.unpack_from("<i", self.data, start)
        _, start, stop, at = self.element(at, end, _INT8)
        _expect(length > 0 and (stop - start) % length == 0 and prod(dimensions) <= end - at)
        array = np.empty(prod(dimensions), _fields(bytes(self.data[start:stop]), length))
        names = array.dtype.names or ()
        for index in range(len(array)):
            values = []
            for _ in names:
                _, start, stop, at = self.element(at, end, _MATRIX)
                values.append(self.matrix(start, stop))
            array[index] = tuple(values)
        return array.reshape(dimensions, order="F")

    def _text(self, at: int, end: int, dimensions: tuple[int, ...]) -> NDArray[Any]:
        kind, start, stop, _ = self.element(at, end)
        _expect(kind in _ENCODINGS and len(dimensions) == 2)
        text = str(self.data[start:stop], _ENCODINGS[kind])
        rows, columns = dimensions
        _expect(len(text) == rows * columns)
        lines = [text[row::rows] for row in range(rows)] if text else []
        return np.array(lines, f"<U{max(columns, 1)}")

    def _numbers(self, at: int, end: int, dimensions: tuple[int, ...]) -> NDArray[Any]:
        kind, start, stop, _ = self.element(at, end)
        _expect(kind in _NUMBERS)
        dtype = _NUMBERS[kind]
        _expect(stop - start == prod(dimensions) * dtype.itemsize)
        return self.octets[start:stop].view(dtype).reshape(dimensions, order="F")


@lru_cache(64)
def _fields(names: bytes, length: int) -> np.dtype[Any]:
    parts = [names[start : start + length].split(b"\0", 1)[0] for start in range(0, len(names), length)]
    _expect(len(set(parts)) == len(parts) > 0 and all(parts))
    return np.dtype([(part.decode("ascii"), object) for part in parts])
