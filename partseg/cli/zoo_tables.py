"""Published tables as text: each number above ours and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.zoo import Zoo
    from pipelines.zoo_state import Number, RowState

LARGEST = 400
"""Columns; no table comes near it."""
KINDS = {"segm": "masks", "bbox": "boxes"}
COLOURS = {"reached": "green", "near": "yellow", "missed": "red"}


def print_zoo(zoo: Zoo, states: Sequence[RowState], profile: str | None) -> None:
    """Every table of a zoo."""
    out = _console()
    of = f", profile {profile}" if profile else ""
    _line(out, f"[bold]{escape(zoo.name)}[/]: {escape(zoo.source)}{escape(of)}")
    for name, table in zoo.tables.items():
        rows = [state for state in states if state.row.table == name]
        recipes = {state.recipe for state in rows}
        common = f"; recipe {next(iter(recipes))}" if len(recipes) == 1 else ""
        _line(out, f"\n[bold]{escape(table.title)}[/]{escape(common)}")
        _whole(out, _table(rows, with_recipe=len(recipes) > 1))
    hours = sum({state.row.stage: state.row.hours[-1] for state in states}.values())
    done = sum(state.state == "done" for state in states)
    on = zoo.hardware
    _line(out, f"{done} of {len(states)} rows done; published: {hours:g} h of training on {on.gpus} {on.gpu}")
    if any(number.reproduced is not None for state in states for number in state.numbers):
        from pipelines.zoo_state import TOLERANCE

        _line(out, f"Numbers are published, ours and the difference, in percent. {TOLERANCE}")
        _note_profile(out, profile)


def _table(rows: Sequence[RowState], *, with_recipe: bool) -> Table:
    """One line per row; one column per dataset that all of them have, else one for whatever they have."""
    datasets = [name for name in rows[0].row.metrics if all(name in state.row.metrics for state in rows)]
    if datasets:
        heads = [_head(name, [n for n in rows[0].numbers if n.dataset == name]) for name in datasets]
    else:
        heads = ["published"]
    table = Table("row", "stage", "state", box=SIMPLE_HEAD, pad_edge=False)
    if with_recipe:
        table.add_column("recipe")
    for head in heads:
        table.add_column(head, justify="left" if not datasets else "right")
    for column in table.columns:
        column.no_wrap = True
    for state in rows:
        cells = [_cell([n for n in state.numbers if n.dataset == name]) for name in datasets]
        if not datasets:
            cells = [_words(state.numbers)]
        colour = "green" if state.state == "done" else "dim" if state.state == "nothing" else "yellow"
        table.add_row(
            state.row.id,
            state.row.stage,
            f"[{colour}]{state.state}[/]",
            *([state.recipe] if with_recipe else []),
            *cells,
        )
    return table


def _head(dataset: str, numbers: Sequence[Number]) -> str:
    """A dataset, what overlaps are of, and the names of its measures, each above its numbers."""
    kinds = {number.measure.partition("/")[0] for number in numbers}
    what = " ".join(KINDS.get(kind, kind) for kind in sorted(kinds))
    return f"{dataset}\n{what}\n" + "  ".join(f"{_short(n.measure):>{_width(n)}}" for n in numbers)


def _cell(numbers: Sequence[Number]) -> str:
    """The published numbers; below them, where there are any, ours and the differences."""
    lines = ["  ".join(f"{number.published:>{_width(number)}.1f}" for number in numbers)]
    if any(number.reproduced is not None for number in numbers):
        lines.append("  ".join(f"{percent(number.reproduced):>{_width(number)}}" for number in numbers))
        lines.append("  ".join(_coloured(number, _width(number)) for number in numbers))
    return "\n".join(lines)


def _words(numbers: Sequence[Number]) -> str:
    """Numbers with their names, for tables whose rows are of different datasets."""
    lines = []
    for number in numbers:
        kind = KINDS.get(number.measure.partition("/")[0], "")
        ours = "" if number.reproduced is None else f"  {percent(number.reproduced)}  {_coloured(number, 0)}"
        lines.append(
            f"{number.dataset:<12}  {kind} {_short(number.measure):<4} {number.published:>5.1f}{ours}"
        )
    return "\n".join(lines)


def print_row(state: RowState, profile: str | None, *, weights: Path | None = None) -> None:
    """What a row is."""
    row, on, out = state.row, state.zoo.hardware, _console()
    hours = " + ".join(f"{value:g}" for value in row.hours)
    table = state.zoo.tables[row.table]
    lines = {
        "row": f"{row.id}: {row.label}",
        "table": f"{table.title}. {table.note}" if table.note else table.title,
        "recipe": f"{state.recipe}, stage {row.stage}" + (f", profile {profile}" if profile else ""),
        "published as": f"{row.config} of {state.zoo.source}",
        "released": f"{state.zoo.release}{row.checkpoint}",
        "trained": f"{hours} h on {on.gpus} {on.gpu}",
        "weights": str(weights) if weights else "",
        "state": "" if weights else state.state if state.state != "nothing" else "nothing in the store",
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        if text:
            _line(out, f"[dim]{name:<{width}}[/]  {escape(text)}")
    _note_profile(out, profile)


def print_numbers(state: RowState) -> None:
    """Published, reproduced, difference; other measures that may be meant stand below."""
    out = _console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("dataset", "measure"):
        table.add_column(name, no_wrap=True)
    for name in ("published", "reproduced", "difference"):
        table.add_column(name, no_wrap=True, justify="right")
    for number in state.numbers:
        table.add_row(
            number.dataset,
            escape(number.measure),
            f"{number.published:.1f}",
            percent(number.reproduced),
            _coloured(number, 0),
        )
        for measure, value in number.maybe.items():
            off = None if value is None else value - number.published
            table.add_row("", f"[dim]or {escape(measure)}[/]", "", percent(value), f"[dim]{points(off)}[/]")
    out.print(table)
    if any(number.reproduced is not None for number in state.numbers):
        from pipelines.zoo_state import TOLERANCE

        _line(out, TOLERANCE)
    if any(number.maybe for number in state.numbers):
        _line(out, "or: the publication does not say which of these its number is")


def percent(value: float | None) -> str:
    """A number in percent with one decimal; a dash for None."""
    return "–" if value is None else f"{value:.1f}"


def points(value: float | None) -> str:
    """A difference with its sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _coloured(number: Number, width: int) -> str:
    text = f"{points(number.delta):>{width}}"
    return text if number.verdict is None else f"[{COLOURS[number.verdict]}]{text}[/]"


def _short(measure: str) -> str:
    """``AP``, ``novel AP50``, ``dog:head`` of ``segm/AP``, ``segm/novel/AP50``, ``segm/AP50/dog:head``."""
    steps = measure.split("/")[1:]
    return steps[-1].rpartition("Quadruped:")[2] if ":" in steps[-1] else " ".join(steps)


def _width(number: Number) -> int:
    return max(5, len(_short(number.measure)))


def _note_profile(out: Console, profile: str | None) -> None:
    if profile:
        text = f"Numbers of the profile {profile} cannot be compared with the published ones."
        _line(out, f"[yellow]{escape(text)}[/]")


def _line(out: Console, text: str) -> None:
    out.print(text, soft_wrap=True)


def _console() -> Console:
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=LARGEST)


def _whole(out: Console, table: Table) -> None:
    """A table with every number, even where it is wider than the terminal."""
    wide = Console(highlight=False, width=LARGEST)
    needed = Measurement.get(wide, wide.options, table).maximum
    (out if needed <= out.width else Console(highlight=False, width=needed)).print(table)
