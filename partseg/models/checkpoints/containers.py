"""The containers weights come in: torch's zip, torch's old stream, a plain pickle. Bytes to tensors."""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partseg.errors import WeightsError
from partseg.models.checkpoints.records import DTYPES, ArrayRef, DtypeRef, StorageRef, Symbol, TensorRef
from partseg.models.checkpoints.unpickle import read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of files written by torch.save before version 1.6; torch/serialization.py."""

KINDS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
"""Storage classes by name."""

NUMPY_KINDS = "biufc"
DEEPEST = 200
"""Tables and lists in each other; no file of weights comes near."""

Numbers = Callable[[StorageRef], Tensor]

DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading damaged bytes ends in."""


def read_zip(path: Path) -> Any:
    """What ``torch.save`` wrote since version 1.6.

    Raises:
        WeightsError: it is damaged, holds more than data, or is a compiled program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except DAMAGE as error:
        raise _damaged(path) from error
    except OSError as error:
        raise WeightsError("the weights cannot be read", where=path, fix=str(error)) from error


def read_stream(path: Path) -> tuple[str, Any]:
    """What ``torch.save`` wrote before version 1.6, or any plain pickle, for instance detectron2's.

    Returns:
        Which of the two it is, and the value.

    Raises:
        WeightsError: it is damaged or holds more than data.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            first = read_pickle(stream, path)
            if type(first) is int and first == LEGACY_MAGIC:
                return "torch before 1.6", _read_legacy(stream, path)
            if stream.tell() != stream.size():
                raise _damaged(path)
            return "pickle", _Finisher(path, _no_numbers).finish(first)
    except DAMAGE as error:
        raise _damaged(path) from error
    except OSError as error:
        raise WeightsError("the weights cannot be read", where=path, fix=str(error)) from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    if any(name.endswith("/constants.pkl") for name in members):
        raise WeightsError(
            "the file is a compiled program (TorchScript), not weights",
            where=path,
            fix="give a file written by torch.save(model.state_dict(), ...)",
        )
    claimed = sum(info.file_size for info in members.values())
    if claimed > path.stat().st_size or any(info.compress_type for info in members.values()):
        raise WeightsError(
            "the zip is not one that torch writes: its members are compressed or overlap", where=path
        )
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise WeightsError("the zip holds no data.pkl, so torch did not write it", where=path)
    root = roots[0]
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise WeightsError("the numbers are in big-endian order", where=path)

    def numbers(ref: StorageRef) -> Tensor:
        name = f"{root}data/{ref.key}"
        if name not in members:
            raise WeightsError(
                f"the tensor data {ref.key!r} is missing", where=path, fix="get the file again"
            )
        return _tensor_of(bytearray(archive.read(name)), ref, path)

    tree = read_pickle(io.BytesIO(archive.read(f"{root}data.pkl")), path, _zip_storage)
    return _Finisher(path, numbers).finish(tree)


def _read_legacy(stream: mmap.mmap, path: Path) -> Any:
    """Magic, version, the writer's machine, the value, the keys of its storages, then their bytes."""
    version, machine = read_pickle(stream, path), read_pickle(stream, path)
    if version != 1001 or not isinstance(machine, dict) or not machine.get("little_endian", False):
        raise WeightsError("the file is of an unknown version of torch's old format", where=path)
    kinds: dict[str, str] = {}

    def storage(identity: Any) -> StorageRef:
        ref = _legacy_storage(identity)
        if kinds.setdefault(ref.key, ref.kind) != ref.kind:
            raise _damaged(path)
        return ref

    tree = read_pickle(stream, path, storage)
    keys = read_pickle(stream, path)
    found: dict[str, Tensor] = {}
    if not isinstance(keys, list):
        raise _damaged(path)
    for key in map(str, keys):
        if key not in kinds:
            raise _damaged(path)
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * KINDS[kinds[key]].itemsize
        if count < 0 or size > stream.size() - stream.tell():
            raise _damaged(path)
        found[key] = _tensor_of(bytearray(stream.read(size)), StorageRef(key, kinds[key], count), path)

    def numbers(ref: StorageRef) -> Tensor:
        if ref.key not in found:
            raise _damaged(path)
        window = found[ref.key][ref.offset : ref.offset + ref.count]
        if len(window) != ref.count or ref.offset < 0:
            raise _damaged(path)
        return window

    return _Finisher(path, numbers).finish(tree)


def _tensor_of(content: bytearray, ref: StorageRef, path: Path) -> Tensor:
    dtype = KINDS[ref.kind]
    if len(content) != ref.count * dtype.itemsize:
        raise WeightsError(
            f"the tensor data {ref.key!r} has {len(content)} bytes instead of {ref.count * dtype.itemsize}",
            where=path,
            fix="get the file again",
        )
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _zip_storage(identity: Any) -> StorageRef:
    """``("storage", class, key, device, count)``."""
    tag, kind, key, _, count = identity
    return _storage_ref(tag, kind, key, count)


def _legacy_storage(identity: Any) -> StorageRef:
    """As in a zip, then None or ``(key, offset, count)`` of a window."""
    tag, kind, key, _, count, window = identity
    whole = _storage_ref(tag, kind, key, count)
    if window is None:
        return whole
    _, offset, length = window
    if not isinstance(offset, int) or not isinstance(length, int) or offset < 0:
        raise ValueError("a window of numbers")
    return StorageRef(whole.key, whole.kind, length, offset)


def _storage_ref(tag: Any, kind: Any, key: Any, count: Any) -> StorageRef:
    name = kind.path.rpartition(".")[2] if isinstance(kind, Symbol) else ""
    if tag != "storage" or name not in KINDS or not isinstance(count, int) or count < 0:
        raise ValueError("an unknown storage of numbers")
    if not isinstance(key, (str, int)):
        raise ValueError("a storage without a name")
    return StorageRef(str(key), name, count)


def _no_numbers(ref: StorageRef) -> Tensor:
    raise ValueError("a plain pickle has no tensor data")


class _Finisher:
    """Turns the records a pickle was read into to tensors and arrays; each shared storage is read once."""

    def __init__(self, path: Path, numbers: Numbers) -> None:
        self.path, self.numbers = path, numbers
        self.storages: dict[tuple[str, int, int], tuple[str, Tensor]] = {}
        self.done: dict[int, tuple[Any, Any]] = {}

    def finish(self, value: Any, depth: int = 0) -> Any:
        if depth > DEEPEST:
            raise WeightsError("tables and lists lie too deep in each other", where=self.path)
        if isinstance(value, TensorRef):
            return self.tensor(value)
        if isinstance(value, ArrayRef):
            return _array(value)
        if isinstance(value, StorageRef):
            return self.storage(value)
        if isinstance(value, DtypeRef):
            return value.code
        if isinstance(value, Symbol):
            return value.path
        if not isinstance(value, (dict, list, tuple)):
            return value
        if id(value) not in self.done:
            # The value is kept beside its result, so that its id stays its own.
            self.done[id(value)] = (value, self.container(value, depth + 1))
        return self.done[id(value)][1]

    def container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.finish(item, depth) for key, item in value.items()}
        items = [self.finish(item, depth) for item in value]
        return tuple(items) if isinstance(value, tuple) else items

    def storage(self, ref: StorageRef) -> Tensor:
        key = (ref.key, ref.offset, ref.count)
        if key not in self.storages:
            self.storages[key] = (ref.kind, self.numbers(ref))
        kind, numbers = self.storages[key]
        if kind != ref.kind:
            raise _damaged(self.path)
        return numbers

    def tensor(self, ref: TensorRef) -> Tensor:
        numbers = self.storage(ref.storage)
        if ref.dtype is not None:
            if ref.dtype not in DTYPES or ref.storage.kind != "UntypedStorage":
                raise _damaged(self.path)
            dtype = getattr(torch, ref.dtype)
            if len(numbers) % dtype.itemsize:
                raise _damaged(self.path)
            numbers = numbers.view(dtype)
        size, stride, offset = ref.size, ref.stride, ref.offset
        counts = (*size, *stride, offset)
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in counts):
            raise _damaged(self.path)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        elements = math.prod(size)
        if elements and (last >= len(numbers) or elements > len(numbers)):
            raise WeightsError(
                f"a tensor of shape {list(size)} reaches beyond its {len(numbers)} numbers", where=self.path
            )
        if not elements:
            return torch.empty(size, dtype=numbers.dtype)
        return numbers.as_strided(size, stride, offset)


def _array(ref: ArrayRef) -> Any:
    """A numpy array, or a plain number."""
    data = ref.data.encode("latin1") if isinstance(ref.data, str) else ref.data
    if not isinstance(ref.dtype, DtypeRef) or not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError("an array without a type or without bytes")
    code = ref.dtype.code.lstrip("<>=|")
    if code[:1] not in NUMPY_KINDS or not code[1:].isdigit():
        raise ValueError("an array of something other than numbers")
    order = ref.dtype.order if ref.dtype.order in "<>=|" else "|"
    dtype = np.dtype(code) if order in "=|" else np.dtype(f"{order}{code}")
    shape = ref.shape
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array without a shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("an array with too few or too many bytes")
    numbers = np.frombuffer(bytearray(data), dtype=dtype).astype(dtype.newbyteorder("="), copy=False)
    array = numbers.reshape(shape, order="F" if ref.fortran else "C")
    return array.item() if ref.number else array


def _damaged(path: Path) -> WeightsError:
    return WeightsError("the file is damaged", where=path, fix="get the file again")
