"""Where everything is in a large JSON file, so that any record can be read without reading the rest.

One pass over the file notes the bytes of every top-level value and of every record of the top-level arrays.
The file is read in blocks (mapped pages would count as memory of the process) and searched for brackets and
quotes with numpy. What lies between the records is checked in that pass; what lies inside a record is
checked when it is parsed. So an index that can be made together with records that parse are a valid file.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from partseg.datasets.formats.json_bytes import GET_AGAIN, opened, parse_json, pread, root_object, runs
from partseg.datasets.formats.json_scan import MISSING, scan_blocks
from partseg.errors import SourceError
from partseg.files import replacing_file

__all__ = ["MISSING", "JsonIndex", "index_json"]

Ints = NDArray[np.int64]

_VERSION = 1  # of the files that are kept in the scratch folder
_PARSED = 4096  # records that are parsed at a time


@dataclass(frozen=True, slots=True)
class _Array:
    """One top-level array: its records are rows ``first`` to ``last`` of the table of records."""

    first: int
    last: int
    damage: int | None  # offset of what is not an object or not separated by one comma


class JsonIndex:
    """The parts of one JSON file whose root is an object.

    Args:
        path: the file.
        folder: what :func:`index_json` has stored about it.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self._folder = path, folder
        content = orjson.loads((folder / "index.json").read_bytes())
        self._scalars: dict[str, Any] = content["scalars"]
        self._spans: dict[str, tuple[int, int]] = {key: tuple(span) for key, span in content["spans"].items()}
        self._arrays = {key: _Array(*item) for key, item in content["arrays"].items()}
        self.keys: tuple[str, ...] = tuple(content["keys"])
        self._loaded: dict[str, Ints] = {}

    @cached_property
    def _records(self) -> Ints:
        """First and last byte (exclusive) of every record of every array, [R, 2]."""
        return _load(self._folder / "records.npy")

    def _stored(self, names: Sequence[str], compute: Callable[[], Ints]) -> Ints:
        """An array that is computed once by one of the processes."""
        name = _slug(*names)
        if name not in self._loaded:
            path = self._folder / f"{name}.npy"
            if not path.is_file():
                _save(path, compute())
            self._loaded[name] = _load(path)
        return self._loaded[name]

    def value(self, key: str) -> Any:
        """The value of a top-level key; meant for small ones.

        Raises:
            SourceError: there is no such key, or its value is damaged.
        """
        if key in self._scalars:
            return self._scalars[key]
        start, stop = self._span(key)
        with opened(self.path) as handle:
            raw = pread(handle, start, stop - start, self.path)
        return parse_json(raw, f"{self.path}, {key!r} (bytes {start} to {stop})")

    def count(self, key: str) -> int:
        """How many records the array ``key`` has.

        Raises:
            SourceError: there is no such key, or it is not an array of objects.
        """
        array = self._array(key)
        return array.last - array.first

    def records(self, key: str, positions: Sequence[int] | Ints) -> list[bytes]:
        """The text of some records of an array, in the order asked for; neighbours are read together.

        Raises:
            SourceError: as :meth:`count`, or the file cannot be read.
        """
        first = self._array(key).first
        wanted = np.asarray(positions, np.int64)
        if not len(wanted):
            return []
        order = np.argsort(wanted, kind="stable")  # records lie in the file in their order
        spans = self._records[first + wanted[order]]
        found: list[bytes] = [b""] * len(wanted)
        with opened(self.path) as handle:
            for begin, end, members in runs(order.tolist(), spans.tolist()):
                block = pread(handle, begin, end - begin, self.path)
                for row, start, stop in members:
                    found[row] = block[start - begin : stop - begin]
        return found

    def parsed(self, key: str, positions: Sequence[int] | Ints) -> list[dict[str, Any]]:
        """Some records of an array, parsed.

        Raises:
            SourceError: as :meth:`records`, or a record is damaged; names it and its place in the file.
        """
        return self.parse(key, positions, self.records(key, positions))

    def parse(self, key: str, positions: Sequence[int] | Ints, raws: Sequence[bytes]) -> list[dict[str, Any]]:
        """The records whose text :meth:`records` gave.

        Raises:
            SourceError: one is damaged; names it and its place in the file.
        """
        try:
            rows: list[dict[str, Any]] = orjson.loads(b"[" + b",".join(raws) + b"]")
            return rows
        except orjson.JSONDecodeError:  # one of them is damaged, or holds NaN
            return [
                parse_json(raw, self.where(key, int(position)))
                for position, raw in zip(positions, raws, strict=True)
            ]

    def where(self, key: str, position: int) -> str:
        """A record's place, for messages."""
        start = int(self._records[self._array(key).first + position, 0])
        return f"{self.path}, {key}[{position}] (byte {start})"

    def integers(self, key: str, field: str) -> Ints:
        """An integer field of all records of an array [R]; ``MISSING`` where it is absent or no int64.

        Fields named to :func:`index_json` were found in its pass; others are parsed now, which takes longer.

        Raises:
            SourceError: as :meth:`count`, or a record is damaged.
        """
        return self._stored(
            (key, field), lambda: _parse_integers(self, key, field, np.arange(self.count(key)))
        )

    def groups(self, key: str, field: str, other: str, other_field: str) -> tuple[Ints, Ints]:
        """The records of ``key`` by the record of ``other`` that ``field`` refers to.

        Returns:
            The positions of the records, int64 [R], those of one group next to each other and in the order of
            the file; and where each group begins, int64 [records of ``other`` + 2]. The group of record i of
            ``other`` is ``order[starts[i]:starts[i + 1]]``; the last group refers to no record. Where several
            records of ``other`` have the same id, the first one has the group.

        Raises:
            SourceError: as :meth:`integers`.
        """
        groups = self.count(other) + 1

        def group() -> Ints:
            rows = self.find(other, other_field, self.integers(key, field))
            return np.where(rows < 0, groups - 1, rows)

        names = (key, field, other, other_field)
        order = self._stored((*names, "order"), lambda: np.argsort(group(), kind="stable"))
        starts = self._stored(
            (*names, "starts"), lambda: np.append(0, np.cumsum(np.bincount(group(), minlength=groups)))
        )
        return order, starts

    def find(self, key: str, field: str, values: Ints) -> Ints:
        """The first record of ``key`` with each of ``values`` in its ``field``, int64 [N]; -1 for none.

        Raises:
            SourceError: as :meth:`integers`.
        """
        have = self.integers(key, field)
        order = self._stored((key, field, "sorted"), lambda: np.argsort(have, kind="stable"))
        if not len(order):
            return np.full(len(values), -1, np.int64)
        place = np.minimum(np.searchsorted(have, values, sorter=order), len(order) - 1)
        found = order[place]
        return np.where((have[found] == values) & (values != MISSING), found, -1)

    def repeated(self, key: str, field: str) -> Ints:
        """The positions of records whose ``field`` has the value of an earlier one, ascending int64 [N]."""

        def again() -> Ints:
            values = self.integers(key, field)
            first = self.find(key, field, values)
            return np.flatnonzero((first >= 0) & (first != np.arange(len(values))))

        return self._stored((key, field, "repeated"), again)

    def _span(self, key: str) -> tuple[int, int]:
        if key not in self._spans:
            known = ", ".join(self.keys) or "none"
            raise SourceError(f"has no {key!r}", where=self.path, fix=f"{GET_AGAIN}; its keys are: {known}")
        return self._spans[key]

    def _array(self, key: str) -> _Array:
        array = self._arrays.get(key)
        if array is not None and array.damage is None:
            return array
        if key in self._scalars or (array is None and self._span(key)):
            raise SourceError(f"{key!r} is not a list", where=self.path, fix=GET_AGAIN)
        assert array is not None
        raise SourceError(
            f"{key!r} is not a list of objects separated by commas (byte {array.damage})",
            where=self.path,
            fix=GET_AGAIN,
        )


def index_json(path: Path, scratch: Path, integers: Mapping[str, Sequence[str]] | None = None) -> JsonIndex:
    """The index of a JSON file, made on first use and shared by all processes with the same ``scratch``.

    Args:
        path: the file; its root must be an object.
        scratch: a folder for the index, keyed by the file's path, size and time of change.
        integers: for each array the integer fields to note in the same pass, such as ids.

    Raises:
        SourceError: the file is missing, or its structure is damaged; names the byte.
    """
    fields = tuple((key, tuple(names)) for key, names in sorted((integers or {}).items()))
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", where=path, fix=GET_AGAIN) from None
    return _index(path.absolute(), status.st_size, status.st_mtime_ns, scratch, fields)


@lru_cache(maxsize=16)
def _index(
    path: Path, size: int, mtime: int, scratch: Path, integers: tuple[tuple[str, tuple[str, ...]], ...]
) -> JsonIndex:
    identity = orjson.dumps([_VERSION, str(path), size, mtime, integers])
    folder = scratch / f"{path.stem}-{hashlib.sha256(identity).hexdigest()[:16]}"
    if not (folder / "index.json").is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=scratch))
        try:
            _build(path, temporary, dict(integers))
            temporary.rename(folder)
        except OSError:
            if not (folder / "index.json").is_file():  # else another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return JsonIndex(path, folder)


def _build(path: Path, folder: Path, integers: Mapping[str, Sequence[str]]) -> None:
    names = sorted({name for fields in integers.values() for name in fields})
    with opened(path) as handle:
        found = scan_blocks(handle, path, names)
        root = root_object(handle, path, found.spans, found.size)
    kinds = {key: found.spans[value[0]] for key, value in root.items() if isinstance(value, list)}
    spans = {key: (start, stop) for key, (start, stop, _) in kinds.items()}
    arrays = {key: found.array(start, stop) for key, (start, stop, is_list) in kinds.items() if is_list}
    content = {
        "keys": list(root),
        "scalars": {key: value for key, value in root.items() if key not in spans},
        "spans": spans,
        "arrays": arrays,
    }
    np.save(folder / "records.npy", found.records)
    (folder / "index.json").write_bytes(orjson.dumps(content))
    index = JsonIndex(path, folder)
    for key, fields in integers.items():
        if key not in arrays or arrays[key][2] is not None:
            continue  # whoever needs them gets the error
        first, last, _ = arrays[key]
        for name in fields:
            values, sure = found.integers(name, first, last)
            doubtful = np.flatnonzero(~sure)
            values[doubtful] = _parse_integers(index, key, name, doubtful)
            np.save(folder / f"{_slug(key, name)}.npy", values)


def _parse_integers(index: JsonIndex, key: str, field: str, positions: Ints) -> Ints:
    values = np.full(len(positions), MISSING, np.int64)
    for start in range(0, len(positions), _PARSED):
        for row, record in enumerate(index.parsed(key, positions[start : start + _PARSED]), start):
            value = record.get(field)
            if type(value) is int and -(2**63) < value < 2**63:
                values[row] = value
    return values


def _slug(*names: str) -> str:
    """A file name for something about some keys, whatever characters they have."""
    return hashlib.sha256(orjson.dumps(names)).hexdigest()[:16]


def _save(path: Path, array: Ints) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


def _load(path: Path) -> Ints:
    array: Ints = np.load(path, mmap_mode="r") if path.stat().st_size > 4096 else np.load(path)
    return array
