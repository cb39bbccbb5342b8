"""What stands in a pickle of weights instead of tensors, arrays and objects, and the names that may be used.

Nothing here is read from a file or imported by its name: every record is plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name in a pickle, ``module.name``. It is never imported."""

    path: str


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a trainer beside the weights: its class and what it was made of, as data."""

    symbol: str
    args: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """The numbers of one or several tensors, elsewhere in the file.

    Attributes:
        key: its name in the file.
        kind: torch's name of the storage class, for instance ``FloatStorage``.
        count: how many numbers.
        offset: in numbers, where a storage is a window of another (old files only).
    """

    key: str
    kind: str
    count: int
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor whose numbers are not read yet; sizes and strides in numbers, not yet checked."""

    storage: StorageRef
    offset: Any
    size: Any
    stride: Any
    dtype: str | None = None


@dataclass(slots=True, eq=False)
class DtypeRef:
    """A numpy type as written: ``f4`` and its byte order."""

    code: str
    order: str = "|"


@dataclass(slots=True, eq=False)
class ArrayRef:
    """A numpy array, or a single number of numpy's, as written: shape, type, order and bytes."""

    shape: Any = None
    dtype: Any = None
    fortran: bool = False
    data: Any = None
    number: bool = False


INERT = (
    "argparse.Namespace",
    "collections.Counter",
    "datetime.",
    "detectron2.",
    "fvcore.",
    "mmcv.",
    "mmengine.",
    "omegaconf.",
    "pathlib.",
    "torch.optim.",
    "yacs.config.CfgNode",
)
"""Beginnings of the names trainers leave beside the weights: options, schedules, paths."""

NUMPY = ("numpy.core.", "numpy._core.")
"""Numpy 1 and numpy 2 write the same functions under these."""


def known(symbol: Symbol) -> bool:
    """Whether a name may stand in a file of weights at all."""
    return maker(symbol) is not None or _named_only(symbol)


def simple_key(value: Any) -> Any:
    """Keys are simple values: nothing that would have to be compared or hashed in depth."""
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    raise ValueError("a key must be a simple value")


def maker(symbol: Symbol) -> Callable[..., Any] | None:
    """How the arguments of a known name become plain data."""
    path = symbol.path
    for prefix in NUMPY:
        path = path.replace(prefix, "numpy.", 1) if path.startswith(prefix) else path
    if make := _MAKERS.get(path.replace("__builtin__.", "builtins.", 1)):
        return make
    if path.startswith(INERT):
        return lambda *arguments: Inert(path, arguments)
    return None


def _named_only(symbol: Symbol) -> bool:
    """Names that are passed around but never called: types of storages, numbers and arrays."""
    module, _, name = symbol.path.rpartition(".")
    return (module in ("torch", "torch.storage") and name.endswith("Storage")) or (
        symbol.path == "numpy.ndarray" or (module == "torch" and name in DTYPES)
    )


DTYPES = {
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool",
    "complex64", "complex128",
}  # fmt: skip
"""Number types of torch, by the name after ``torch.``."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise ValueError("a tensor without numbers")
    return TensorRef(storage, offset, size, stride)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> TensorRef:
    if not isinstance(storage, StorageRef) or not isinstance(dtype, Symbol):
        raise ValueError("a tensor without numbers")
    return TensorRef(storage, offset, size, stride, dtype.path.removeprefix("torch."))


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _array(kind: Any, shape: Any, code: Any) -> ArrayRef:
    return ArrayRef()


def _array_from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRef:
    return ArrayRef(shape, dtype, order == "F", data)


def _scalar(dtype: Any, data: Any = b"") -> ArrayRef:
    return ArrayRef((), dtype, False, data, number=True)


def _dtype(code: Any, *rest: Any) -> DtypeRef:
    if not isinstance(code, str):
        raise ValueError("a numpy type without a name")
    return DtypeRef(code)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise ValueError("only bytes are written as encoded text")
    return text.encode(encoding)


def _table(pairs: Any = ()) -> dict[Any, Any]:
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return {simple_key(key): value for key, value in pairs}


def _default_table(factory: Any = None, pairs: Any = ()) -> dict[Any, Any]:
    return _table(pairs)


def _simple_set(values: Any = ()) -> set[Any]:
    if not isinstance(values, (list, tuple, set, frozenset)):
        raise ValueError("a set is written as a list")
    return {simple_key(value) for value in values}


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    if isinstance(content, str):
        return _encoded(content, encoding)
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if isinstance(content, (list, tuple)) and not content:
        return b""
    raise ValueError("bytes are written as bytes or text")


def _sequence(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def make(values: Any = ()) -> Any:
        if not isinstance(values, (list, tuple)):
            raise ValueError("a sequence is written as a list")
        return kind(values)

    return make


def _complex(real: Any = 0, imaginary: Any = 0) -> complex:
    return complex(float(real), float(imaginary))


_MAKERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encoded,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.dict": _table,
    "builtins.frozenset": _simple_set,
    "builtins.list": _sequence(list),
    "builtins.set": _simple_set,
    "builtins.tuple": _sequence(tuple),
    "collections.OrderedDict": _table,
    "collections.defaultdict": _default_table,
    "numpy.dtype": _dtype,
    "numpy.multiarray._reconstruct": _array,
    "numpy.multiarray.scalar": _scalar,
    "numpy.numeric._frombuffer": _array_from_bytes,
    "torch.Size": _sequence(tuple),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch.device": lambda *arguments: ":".join(map(str, arguments[:2])),
    "torch.nn.parameter.Parameter": _parameter,
}
