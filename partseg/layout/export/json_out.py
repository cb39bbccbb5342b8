"""Large JSON files, written piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from partseg.files import replacing_file

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def write_json(path: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Write a JSON object.

    Args:
        path: the file; an existing one is replaced at once, at the end.
        content: values as orjson takes them, numpy arrays included. An iterator of lists is written as one
            array, one list in memory at a time.

    Returns:
        How many elements each array has that came from an iterator.
    """
    counts: dict[str, int] = {}
    with replacing_file(path) as temporary, temporary.open("wb") as stream:
        stream.write(b"{")
        for number, (key, value) in enumerate(content.items()):
            stream.write((b",\n" if number else b"") + orjson.dumps(key) + b": ")
            if isinstance(value, Iterator):
                counts[key] = _write_array(stream, value)
            else:
                stream.write(orjson.dumps(value, option=_OPTIONS))
        stream.write(b"}\n")
    return counts


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`write_json` would write, parsed: dictionaries, lists, numbers and strings."""
    whole = {
        key: [row for rows in value for row in rows] if isinstance(value, Iterator) else value
        for key, value in content.items()
    }
    parsed: dict[str, Any] = orjson.loads(orjson.dumps(whole, option=_OPTIONS))
    return parsed


def _write_array(stream: BinaryIO, pieces: Iterator[list[Any]]) -> int:
    count = 0
    stream.write(b"[")
    for rows in pieces:
        if rows:
            stream.write((b",\n" if count else b"") + orjson.dumps(rows, option=_OPTIONS)[1:-1])
            count += len(rows)
    stream.write(b"]")
    return count
