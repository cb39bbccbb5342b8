"""Tables and small numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

COLOURS = {
    "cached": "green",
    "built": "green",
    "done": "green",
    "run": "yellow",
    "running": "yellow",
    "maybe": "cyan",
    "blocked": "red",
    "failed": "red",
    "dead": "red",
    "stopped": "magenta",
    "skipped": "dim",
}


def console() -> Console:
    """Standard output; 120 columns wide where it is not a terminal, so that logs are not folded."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=120)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, last_wraps: bool = True) -> None:
    """A table whose last column takes the space that is left; states are coloured."""
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[: -1 if last_wraps else None]:
        column.no_wrap = True
    for row in rows:
        table.add_row(*(paint(cell) for cell in row))
    console().print(table)


def paint(text: str) -> str:
    """A state in its colour; anything else as it is, with brackets that rich would read escaped."""
    from rich.markup import escape

    colour = COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else escape(text)


def size_text(size: int | None) -> str:
    """Bytes in a unit a person reads."""
    if size is None:
        return ""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def seconds_text(seconds: float | None) -> str:
    """A duration in a unit a person reads."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
