"""One pass over the bytes of a JSON file: where its top-level values and the records of its arrays lie.

Depths: the root object is 1, its values 2, the records of an array 3. Only brackets and quotes matter for
that. Brackets inside strings are recognised by the parity of the quotes before them, and a quote that follows
an odd number of backslashes is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partseg.errors import SourceError

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

MISSING = -(2**63)

_BLOCK = 1 << 20  # bytes; stays in the cache of the processor, and a block of nothing but quotes is bearable
_PAD = 32  # zeros after a block, so that looking ahead needs no checks
_DIGITS = 18  # as many fit an int64, whatever they are
_QUOTE, _BACKSLASH, _COLON, _COMMA, _MINUS = b'"\\:,-'
_OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT = b"[]{}"

_STEP = np.zeros(256, np.int8)
_STEP[[_OPEN_LIST, _OPEN_OBJECT]] = 1
_STEP[[_CLOSE_LIST, _CLOSE_OBJECT]] = -1
_SPACE = np.zeros(256, np.bool_)
_SPACE[list(b" \t\r\n")] = True
_ENDS_NUMBER = _SPACE.copy()
_ENDS_NUMBER[[_COMMA, _CLOSE_OBJECT]] = True
# What a gap between records consists of: one comma and spaces is a sum of 1.
_WEIGHT = np.where(_SPACE, 0, 1 << 30).astype(np.int64)
_WEIGHT[_COMMA] = 1


@dataclass(frozen=True, slots=True)
class Scan:
    """What a pass has found.

    Attributes:
        size: of the file, bytes.
        spans: first and last byte (exclusive) of every list or object at the top level, and if it is a list.
        records: int64 [R, 2], first and last byte (exclusive) of everything at depth 3, in the file's order.
        damages: ascending offsets of anything that no array of objects may have between or as its records.
        values: for each wanted name, the integers that records have under it, int64 [R].
        sure: for each wanted name, where ``values`` certainly says what a parser would, bool [R]; elsewhere
            a parser has to look.
    """

    size: int
    spans: list[tuple[int, int, bool]]
    records: Ints
    damages: Ints
    values: dict[str, Ints]
    sure: dict[str, NDArray[np.bool_]]

    def array(self, start: int, stop: int) -> tuple[int, int, int | None]:
        """First and last record (exclusive) of the list at ``start``, and what is wrong with it."""
        first, last = np.searchsorted(self.records[:, 0], (start + 1, stop)).tolist()
        place = int(np.searchsorted(self.damages, start))
        damaged = place < len(self.damages) and self.damages[place] < stop
        return first, last, int(self.damages[place]) if damaged else None

    def integers(self, name: str, first: int, last: int) -> tuple[Ints, NDArray[np.bool_]]:
        """The integers named ``name`` of some records, and where they are sure."""
        return self.values[name][first:last].copy(), self.sure[name][first:last]


class _Field:
    """Collects one integer field of the records."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = np.frombuffer(name.encode(), np.uint8)
        self.values: list[Ints] = []
        self.sure: list[NDArray[np.bool_]] = []


class _Pass:
    """The state between two blocks."""

    def __init__(self, names: Sequence[str]) -> None:
        self.depth = 0
        self.in_string = 0
        self.backslashes = 0  # at the end of the last block
        self.gap: tuple[int, int, int] | None = None  # offset, step of the bracket before it, sum so far
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.kinds: list[tuple[int, int]] = []
        self.opens: list[Ints] = []
        self.closes: list[Ints] = []
        self.damages: list[Ints] = []
        self.fields = [_Field(name) for name in names]

    def block(self, data: Bytes, size: int, offset: int) -> None:
        """Go on with ``size`` bytes of ``data`` that lie at ``offset`` in the file."""
        body = data[:size]
        # Brackets and a few letters, and quotes: two comparisons instead of five.
        marks = np.flatnonzero(((body & 0xD9) == 0x59) | (body == _QUOTE))
        codes = body[marks]
        quotes = codes == _QUOTE
        slashes = self._drop_escaped(body, marks, quotes)
        inside = (np.cumsum(quotes) + self.in_string) & 1
        steps = _STEP[codes]
        steps[inside == 1] = 0
        depths = self.depth + np.cumsum(steps, dtype=np.int32)
        kept = steps != 0
        at, after, step = marks[kept], depths[kept], steps[kept]
        opens, closes = (after == 3) & (step > 0), (after == 2) & (step < 0)
        self._containers(body, at, after, step, offset)
        self._gaps(body, at, after, step, offset)
        self.opens.append(at[opens] + offset)
        self.closes.append(at[closes] + offset)
        odd = body[at[opens]] != _OPEN_OBJECT
        if odd.any():
            self.damages.append(at[opens][odd] + offset)
        ends_deep = (self.depth if not len(depths) else int(depths[-1])) >= 3
        strings = np.flatnonzero(quotes)
        for field in self.fields:
            self._field(field, data, marks[strings], inside[strings], depths[strings], at[opens])
            sure = field.sure[-1]
            sure[self._escaped_records(slashes, marks, depths, at[opens])] = False
            if ends_deep and len(sure):
                sure[-1] = False  # goes on in the next block
        if len(marks):
            self.depth, self.in_string = int(depths[-1]), int(inside[-1])

    def _escaped_records(self, slashes: Ints, marks: Ints, depths: NDArray[np.int32], opens: Ints) -> Ints:
        """Records of this block that have a name, or a string directly under one, with a backslash."""
        if not len(slashes):
            return slashes
        depth = np.append(self.depth, depths)[np.searchsorted(marks, slashes)]
        records = np.searchsorted(opens, slashes[depth == 3]) - 1
        return np.unique(records[records >= 0])

    def _drop_escaped(self, body: Bytes, marks: Ints, quotes: NDArray[np.bool_]) -> Ints:
        """Take quotes after an odd number of backslashes out of ``quotes``; where the backslashes are."""
        before, self.backslashes = self.backslashes, 0
        slashes = np.flatnonzero(body == _BACKSLASH)
        if before % 2 and body[0] == _QUOTE:
            quotes[0] = False
        if not len(slashes):
            return slashes
        first = np.flatnonzero(np.append(True, np.diff(slashes) != 1))
        lengths = np.diff(np.append(first, len(slashes)))
        ends = slashes[first] + lengths
        if slashes[0] == 0:
            lengths[0] += before
        if ends[-1] == len(body):
            self.backslashes = int(lengths[-1])
        after = ends[(lengths % 2 == 1) & (ends < len(body))]
        place = np.searchsorted(marks, after)
        after, place = after[place < len(marks)], place[place < len(marks)]
        quotes[place[marks[place] == after]] = False
        return slashes

    def _containers(self, body: Bytes, at: Ints, after: NDArray[np.int32], step: Bytes, offset: int) -> None:
        """Lists and objects at the top level."""
        edges = np.flatnonzero(((after == 2) & (step > 0)) | ((after == 1) & (step < 0)) | (after < 1))
        for place in edges.tolist():
            position, code = int(at[place]), int(body[at[place]])
            if after[place] == 2:
                self.starts.append(position + offset)
                self.kinds.append((code, 0))
            elif after[place] == 1:
                self.stops.append(position + offset + 1)
                self.kinds[-1] = (self.kinds[-1][0], code)
            elif after[place] < 0:
                raise _Damage(position + offset)

    def _gaps(self, body: Bytes, at: Ints, after: NDArray[np.int32], step: Bytes, offset: int) -> None:
        """What lies between records: one comma, and none before the first and after the last."""
        befores = np.flatnonzero(after == 2)
        begins, ends = at[befores] + 1, np.append(at, len(body))[befores + 1]
        entered, left = step[befores].astype(np.int64), np.append(step, 0)[befores + 1]
        carried, origins = np.zeros(len(befores), np.int64), begins + offset
        if self.gap is not None:
            origin, before, total = self.gap
            begins, ends = np.append(0, begins), np.append(at[0] if len(at) else len(body), ends)
            entered, left = np.append(before, entered), np.append(step[0] if len(step) else 0, left)
            carried, origins = np.append(total, carried), np.append(origin, origins)
        self.gap = None
        if not len(begins):
            return
        lengths = ends - begins
        stops = np.cumsum(lengths)
        places = np.repeat(begins - (stops - lengths), lengths) + np.arange(stops[-1])
        sums = np.concatenate(([0], np.cumsum(_WEIGHT[body[places]])))
        totals = carried + sums[stops] - sums[stops - lengths]
        if left[-1] == 0:  # goes on in the next block
            self.gap = (int(origins[-1]), int(entered[-1]), min(int(totals[-1]), 1 << 40))
            totals, entered, left, origins = totals[:-1], entered[:-1], left[:-1], origins[:-1]
        wrong = totals != ((entered < 0) & (left > 0))
        if wrong.any():
            self.damages.append(origins[wrong])

    def _field(
        self, field: _Field, data: Bytes, quotes: Ints, inside: Ints, depths: NDArray[np.int32], opens: Ints
    ) -> None:
        """The integers that the records which begin in this block have under one name."""
        size = len(field.text)
        values = np.full(len(opens), MISSING, np.int64)
        sure = np.ones(len(opens), np.bool_)
        field.values.append(values)
        field.sure.append(sure)
        lengths = np.diff(quotes) - 1
        begins = quotes[:-1][(lengths == size) & (inside[:-1] == 1) & (depths[:-1] == 3)] + 1
        for place, code in enumerate(field.text.tolist()):
            begins = begins[data[begins + place] == code]
        colon = _skip_spaces(data, begins + size + 1)
        is_key = data[colon] == _COLON
        begins, number = begins[is_key], _skip_spaces(data, colon[is_key] + 1)
        records = np.searchsorted(opens, begins) - 1
        ours = records >= 0
        records, number = records[ours], number[ours]
        found, simple = _integers(data, number)
        values[records] = np.where(simple, found, MISSING)
        sure[records[~simple]] = False
        if len(records):
            sure[np.bincount(records, minlength=len(opens)) > 1] = False


class _Damage(Exception):
    """The structure breaks at a byte."""


def scan_blocks(handle: int, path: Path, names: Sequence[str]) -> Scan:
    """Scan an open file for its structure, and for the integers its records have under ``names``.

    Raises:
        SourceError: the brackets do not fit, or the file ends too early.
    """
    buffer = np.zeros(_BLOCK + _PAD, np.uint8)
    state = _Pass(names)
    offset = 0
    fix = "download or extract the file again"
    try:
        while size := os.preadv(handle, [buffer[:_BLOCK].data], offset):
            if offset == 0 and not bytes(buffer[:size]).lstrip().startswith(b"{"):
                raise SourceError("the JSON is not an object", where=path, fix=fix)
            buffer[size : size + _PAD] = 0
            state.block(buffer, size, offset)
            offset += size
    except _Damage as damage:
        what = f"the JSON is damaged at byte {damage.args[0]} (a bracket too many)"
        raise SourceError(what, where=path, fix=fix) from None
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", where=path, fix=fix) from None
    if state.depth or state.in_string:
        inside = "a string" if state.in_string else "a list or object"
        raise SourceError(f"ends at byte {offset} within {inside}", where=path, fix=fix)
    for start, kinds in zip(state.starts, state.kinds, strict=True):
        if kinds not in ((_OPEN_LIST, _CLOSE_LIST), (_OPEN_OBJECT, _CLOSE_OBJECT)):
            raise SourceError(f"the bracket at byte {start} is closed by another kind", where=path, fix=fix)
    none = [np.zeros(0, np.int64)]
    records = np.stack(
        [np.concatenate(state.opens or none), np.concatenate(state.closes or none) + 1], axis=1
    )
    return Scan(
        size=offset,
        spans=[
            (start, stop, kind == _OPEN_LIST)
            for start, stop, (kind, _) in zip(state.starts, state.stops, state.kinds, strict=True)
        ],
        records=records,
        damages=np.sort(np.concatenate(state.damages or none)),
        values={field.name: np.concatenate(field.values or none) for field in state.fields},
        sure={field.name: np.concatenate(field.sure or [np.ones(0, np.bool_)]) for field in state.fields},
    )


def _skip_spaces(data: Bytes, places: Ints) -> Ints:
    """At most two; where there are more, a parser has to look."""
    for _ in range(2):
        places = places + _SPACE[data[places]]
    return places


def _integers(data: Bytes, places: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The integers written at some places [N], and where that is beyond doubt."""
    negative = data[places] == _MINUS
    places = places + negative
    digits = data[places[:, None] + np.arange(_DIGITS + 1)] - np.uint8(48)
    is_digit = digits <= 9
    count = np.where(is_digit.all(axis=1), _DIGITS + 1, np.argmin(is_digit, axis=1))
    last = places + np.minimum(count, _DIGITS)
    simple = (count > 0) & (count <= _DIGITS) & _ENDS_NUMBER[data[last]]
    simple &= (count == 1) | (digits[:, 0] != 0)
    values = np.zeros(len(places), np.int64)
    for column in range(int(count.max(initial=0))):
        alive = (column < count) & simple
        values = np.where(alive, values * 10 + digits[:, column], values)
    return np.where(negative, -values, values), simple
