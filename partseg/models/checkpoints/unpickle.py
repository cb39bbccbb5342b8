"""Pickles read as plain data: an interpreter of the format that never imports and never calls what it names.

A pickle is a program for a small stack machine, and two of its instructions name any function of any module
and call it. Here a name is only a name: a few, listed in :mod:`partseg.models.checkpoints.records`, say how
tensors, arrays and containers are written and are turned into plain records; objects of known trainers become
inert ones; every other name is an error. Nothing of Python's own unpickler takes part.

Source of the instructions' meaning: CPython's ``pickletools``, protocols 0 to 5.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from partseg.errors import WeightsError
from partseg.models.checkpoints.records import ArrayRef, DtypeRef, Inert, Symbol, known, maker, simple_key


class Stream(Protocol):
    """What a pickle is read from: bytes in memory or a mapped file."""

    def read(self, n: int, /) -> bytes:
        """The next bytes, fewer at the end."""

    def readline(self) -> bytes:
        """The rest of the line."""

    def tell(self) -> int:
        """Where the next byte is."""


_MARK = object()


def read_pickle(stream: Stream, where: Path, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read one pickle; the stream is left just behind it.

    Args:
        stream: at the pickle's first byte.
        where: the file, for messages.
        persistent: what a persistent id stands for.

    Returns:
        Plain values and containers, and records where the file has tensors, arrays, names or a trainer's
        objects. Text of old pickles is latin-1, as detectron2 reads it.

    Raises:
        WeightsError: it is damaged, or names something that is not data.
    """
    try:
        return _Machine(where, persistent).run(stream)
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise WeightsError(
            "the file is damaged, or is no pickle", where=where, fix="get the file again"
        ) from error


class _Machine:
    """The stack machine. One method per group of instructions, named as ``pickletools`` names them."""

    def __init__(self, where: Path, persistent: Callable[[Any], Any] | None) -> None:
        self.where, self.persistent = where, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Stream) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(Any, stream)):
            self.step(opcode.name, argument)
        if len(self.stack) != 1:
            raise ValueError("not exactly one value")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            values = self.marked()
            stack.append(
                values if name == "LIST" else tuple(values) if name == "TUPLE" else self.hashed(values)
            )
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            values = [self.pop() for _ in range(count)][::-1]
            stack.append(tuple(values))
        elif name == "DICT":
            made: dict[Any, Any] = {}
            self.fill(made, self.marked())
            stack.append(made)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [self.pop()] if name == "APPEND" else self.marked()
            self.extend(stack[-1], values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.marked()
            self.fill(stack[-1], values)
        elif name == "GLOBAL":
            stack.append(self.symbol(".".join(argument.split(" ", 1))))
        elif name == "INST":
            raise self.refused(Symbol(".".join(argument.split(" ", 1))))
        elif name == "STACK_GLOBAL":
            attribute, module = self.text(), self.text()
            stack.append(self.symbol(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            stack.append(self.made(function, arguments))
        elif name == "NEWOBJ_EX":
            named, arguments, function = self.pop(), self.pop(), self.pop()
            if named:
                raise self.refused(function)
            stack.append(self.made(function, arguments))
        elif name == "BUILD":
            state = self.pop()
            self.build(stack[-1], state)
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(self.pop()))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.marked()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise WeightsError(
                f"the file uses pickle instruction {name}, which no file of weights needs", where=self.where
            )

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark is not a value")
        return value

    def text(self) -> str:
        value = self.pop()
        if not isinstance(value, str):
            raise ValueError("a name must be text")
        return value

    def marked(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def hashed(self, values: list[Any]) -> frozenset[Any]:
        return frozenset(simple_key(value) for value in values)

    def extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Inert):
            target.members.extend(values)
        elif isinstance(target, set):
            target.update(simple_key(value) for value in values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise ValueError("only lists and sets grow")

    def fill(self, target: Any, values: list[Any]) -> None:
        items = target.items if isinstance(target, Inert) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise ValueError("only tables take pairs")
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[simple_key(key)] = value

    def symbol(self, path: str) -> Symbol:
        symbol = Symbol(path)
        if not known(symbol):
            raise self.refused(symbol)
        return symbol

    def refused(self, found: Any) -> WeightsError:
        name = found.path if isinstance(found, Symbol) else type(found).__name__
        return WeightsError(
            f"the file asks for {name!r}, which is not data",
            where=self.where,
            fix="nothing of it was run; take weights only from people you trust, best as .safetensors",
        )

    def made(self, function: Any, arguments: Any) -> Any:
        make = maker(function) if isinstance(function, Symbol) else None
        if make is None:
            raise self.refused(function)
        if not isinstance(arguments, tuple):
            raise ValueError("arguments must be a tuple")
        return make(*arguments)

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, ArrayRef):
            # ndarray.__reduce__: version, shape, dtype, Fortran order, bytes.
            _, target.shape, target.dtype, target.fortran, target.data = state
        elif isinstance(target, DtypeRef):
            # dtype.__reduce__: version, byte order, then what only structured types have.
            target.order = str(state[1])
            if any(state[2:5]):
                raise ValueError("a structured numpy type")
        elif isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):  # a state dict's own attributes: its versions, of no use here
            raise self.refused(target)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
