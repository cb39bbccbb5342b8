"""What became of every tensor of a file that was loaded into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from partseg.errors import WeightsError

Reshaped = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A tensor's name, its shape in the file and its shape in the model."""

SHOWN = 5
"""Names printed per group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The account of an import.

    Attributes:
        path: the file.
        found: the network its tensors belong to, in words.
        loaded: our names of the tensors that were taken.
        missing: our tensors the file does not have.
        unexpected: tensors of the file nobody knows what to do with.
        reshaped: our tensors that have another shape in the file: name, shape there, shape here.
        aside: tensors of the file that are not needed, and why.
        notes: what one should know before using the result.
    """

    path: Path
    found: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[Reshaped, ...] = ()
    aside: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded and none of the file was left over."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.found}", f"{len(self.loaded)} tensors loaded"]
        shapes = [f"{name} {list(there)} instead of {list(here)}" for name, there, here in self.reshaped]
        for words, names in (
            ("missing in the file", self.missing),
            ("unknown to the model", self.unexpected),
            ("of another shape", shapes),
        ):
            if names:
                lines += [f"{len(names)} {words}", *_some(names)]
        for why in dict.fromkeys(self.aside.values()):
            names = [name for name, reason in self.aside.items() if reason == why]
            lines += [f"{len(names)} left aside: {why}", *_some(names)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def check(self) -> None:
        """Refuse an incomplete import.

        Raises:
            WeightsError: a tensor is missing, left over or of another shape; it says what the file is.
        """
        if self.complete:
            return
        faults = [
            f"{len(names)} {words} (first {first})"
            for names, words, first in (
                (self.missing, "missing", repr(next(iter(self.missing), ""))),
                (self.unexpected, "unknown", repr(next(iter(self.unexpected), ""))),
                (self.reshaped, "of another shape", _first(self.reshaped)),
            )
            if names
        ]
        raise WeightsError(
            f"the tensors do not fit the model: {', '.join(faults)}",
            where=self.path,
            fix=f"the file looks like {self.found}; give weights of this model, or build the model of these",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A model's tensors beside those of a file; see :class:`ImportReport` for the groups."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[Reshaped, ...]


def compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, optional: str) -> Match:
    """Compare the model's tensors with the file's, which has our names and only what should be loaded.

    Args:
        wanted: of the model.
        given: of the file.
        optional: the ending of names that may be missing.
    """
    both = [name for name in wanted if name in given]
    return Match(
        loaded=tuple(name for name in both if given[name].shape == wanted[name].shape),
        missing=tuple(name for name in wanted if name not in given and not name.endswith(optional)),
        unexpected=tuple(name for name in given if name not in wanted),
        reshaped=tuple(
            (name, tuple(given[name].shape), tuple(wanted[name].shape))
            for name in both
            if given[name].shape != wanted[name].shape
        ),
    )


def account(
    path: Path, found: str, match: Match, *, aside: Mapping[str, str], notes: tuple[str, ...] = ()
) -> ImportReport:
    """The report of a match."""
    return ImportReport(
        path=path,
        found=found,
        loaded=match.loaded,
        missing=match.missing,
        unexpected=match.unexpected,
        reshaped=match.reshaped,
        aside=aside,
        notes=notes,
    )


def _some(names: tuple[str, ...] | list[str]) -> list[str]:
    more = [f"  and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return [*(f"  {name}" for name in names[:SHOWN]), *more]


def _first(reshaped: tuple[Reshaped, ...]) -> str:
    if not reshaped:
        return ""
    name, there, here = reshaped[0]
    return f"{name!r}: {list(there)} instead of {list(here)}"
