"""What a module of this package offers to the convert driver.

A *source* is a raw format. Its module reads; it does not write, cache, log or register anything, and what it
reads depends on the raw files and the options alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from partseg.layout import Category, Record


@dataclass(frozen=True, slots=True)
class Raw:
    """Where the raw files are.

    Attributes:
        root: the raw folder.
        scratch: a folder for working files, such as the index of a large JSON file, that all processes of a
            conversion share. Whatever is in it can be made again.
    """

    root: Path
    scratch: Path


class SourceModule(Protocol):
    """One module per raw format.

    Attributes:
        Options: settings of the conversion, strict (``extra="forbid"``, frozen), every one with a default.
    """

    Options: type[BaseModel]

    def files(self, root: Path, options: Any) -> list[str]:
        """Relative posix paths of the raw files that a conversion reads, sorted.

        Raises:
            SourceError: something is missing; names it and how to get it.
        """

    def categories(self, raw: Raw, options: Any) -> tuple[Category, ...]:
        """The whole category table."""

    def splits(self, raw: Raw, options: Any) -> Mapping[str, Sequence[str]]:
        """The keys of every split's source records, in the source's order, unique within a split."""

    def details(self, raw: Raw, options: Any) -> Mapping[str, Mapping[str, Any]]:
        """For each split, what its source says about it as a whole (JSON): licences, attribute names, ..."""

    def read(self, raw: Raw, split: str, keys: Sequence[str], options: Any) -> Iterator[Record]:
        """One record per key, in that order.

        Raises:
            SourceError: a file is missing or damaged.
        """
