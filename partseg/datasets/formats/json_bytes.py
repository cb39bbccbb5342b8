"""Pieces of a JSON file, read and parsed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from partseg.errors import SourceError

GET_AGAIN = "download or extract the file again"

_GLUE = 16 << 10  # bytes; records closer than this are read together
_RUN = 4 << 20  # bytes; the most that is read at once


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of an open file.

    Raises:
        SourceError: the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", where=path, fix=GET_AGAIN) from None
    try:
        yield handle
    finally:
        os.close(handle)


def pread(handle: int, start: int, length: int, path: Path) -> bytes:
    """So many bytes from ``start`` on.

    Raises:
        SourceError: the file ends before.
    """
    raw = os.pread(handle, length, start)
    while len(raw) < length:  # a single read stops at 2 GiB
        more = os.pread(handle, length - len(raw), start + len(raw))
        if not more:
            raise SourceError(f"ends at byte {start + len(raw)} all of a sudden", where=path, fix=GET_AGAIN)
        raw += more
    return raw


def runs(
    rows: Sequence[int], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """What is worth one read each: first and last byte, and the row, first and last byte of its records."""
    members: list[tuple[int, int, int]] = []
    begin = end = 0
    for row, (start, stop) in zip(rows, spans, strict=True):
        if members and (start - end > _GLUE or stop - begin > _RUN):
            yield begin, end, members
            members = []
        if not members:
            begin = start
        end = stop
        members.append((row, start, stop))
    if members:
        yield begin, end, members


def root_object(handle: int, path: Path, spans: Sequence[tuple[int, int, bool]], size: int) -> dict[str, Any]:
    """The root object with ``[i]`` in the place of its i-th list or object.

    Args:
        handle: of the open file.
        path: for messages.
        spans: first and last byte (exclusive) of every list or object in the root.
        size: of the file, bytes.

    Raises:
        SourceError: what remains is no JSON object; names the byte in the file.
    """
    pieces: list[bytes] = []
    starts: list[int] = []  # offset in the file of each piece; placeholders have none
    place = 0
    for number, (start, stop, _) in enumerate(spans):
        pieces += [pread(handle, place, start - place, path), b"[%d]" % number]
        starts += [place, start]
        place = stop
    pieces.append(pread(handle, place, size - place, path))
    starts.append(place)
    try:
        root = orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError as error:
        before, place = np.cumsum([0, *map(len, pieces)]), len(error.doc[: error.pos].encode())
        piece = min(int(np.searchsorted(before, place, side="right")), len(starts)) - 1
        what = f"the JSON is damaged at byte {starts[piece] + place - before[piece]}"
        raise SourceError(f"{what} ({str(error).split(':')[0]})", where=path, fix=GET_AGAIN) from error
    if not isinstance(root, dict):
        raise SourceError("the JSON is not an object", where=path, fix=GET_AGAIN)
    return root


def parse_json(raw: bytes, where: object) -> Any:
    """JSON as Python writes it: NaN and Infinity are numbers.

    Raises:
        SourceError: the text is damaged.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if b"NaN" in raw or b"Infinity" in raw:
            try:
                value = json.loads(raw)
                orjson.dumps(value)  # a string with half a surrogate pair parses, but cannot be stored
                return value
            except (ValueError, TypeError, RecursionError):
                pass
        reason = str(error).split(":")[0]
        raise SourceError(f"the JSON is damaged ({reason})", where=where, fix=GET_AGAIN) from error
