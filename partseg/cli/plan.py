"""`partseg plan` and `partseg recipes`: what a run would do and cost, without doing it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.tables import COLOURS, console, print_table, size_text

if TYPE_CHECKING:
    from pipelines.cost import Missing, Outlook
    from pipelines.outline import Line
    from pipelines.plan import Plan

COST = 16
"""Characters of a published cost that the outline shows; the summary has all of it."""
NARROWEST = 34
"""Characters of the last column, however narrow the terminal is."""


def plan(
    recipe: options.RecipeName,
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    only: options.Only = None,
    from_: options.From = None,
    until: options.Until = None,
    force: options.Force = None,
    downstream: options.Downstream = False,
    set_: options.Set = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with the picture of the graph.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the picture of the graph.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a run would do, why, what it costs, and what is missing. Runs nothing."""
    from pipelines.cost import outlook
    from pipelines.plan import make_plan

    workspace = options.open_workspace(store=store, raw=raw)
    made = make_plan(
        options.read_recipe(recipe, profile, set_),
        workspace,
        options.make_selection(only, from_, until, force, downstream),
    )
    cost = outlook(made, workspace)
    if as_json:
        print(json.dumps({**made.as_json(), "outlook": asdict(cost)}, indent=2))
    else:
        print_plan(made)
        print_outlook(made, cost, workspace.home)
    if html is not None or svg is not None:
        _draw(made, cost, html, svg)


def _draw(made: Plan, cost: Outlook, html: Path | None, svg: Path | None) -> None:
    from partseg.report.plan_page import write_plan_page, write_plan_picture
    from pipelines.outline import nodes, reasons

    drawn = nodes(made)
    if svg is not None:
        write_plan_picture(svg, drawn)
    if html is not None:
        write_plan_page(
            html,
            title=made.recipe.label,
            description=made.recipe.description,
            stages=[{**asdict(row), "why": reasons(row), "size": size_text(row.size)} for row in made.rows],
            nodes=drawn,
            outlook={
                **asdict(cost),
                "download": size_text(cost.download),
                "disk": size_text(cost.disk),
                "free": size_text(cost.free),
                "enough": cost.free >= cost.disk,
                "missing": [{**asdict(item), "size": _missing_size(item)} for item in cost.missing],
                "summary": summary(made, cost),
            },
        )


def print_plan(plan: Plan) -> None:
    """The plan as an outline: every stage below the one it mostly comes from."""
    from rich.text import Text

    from pipelines.outline import outline

    out = console()
    lines = outline(plan)
    sizes = any(row.size is not None for row in plan.rows)
    costs = any(row.cost for row in plan.rows)
    cells = [_cells(line, sizes, costs) for line in lines]
    head = ["stage", "kind", "state", *(["size"] if sizes else []), *(["published"] if costs else [])]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
    widths[0] = min(widths[0], max(NARROWEST, out.width - sum(widths[1:]) - 2 * len(widths) - NARROWEST))
    last = max(NARROWEST, out.width - sum(widths) - 2 * len(widths) - 1)
    text = Text("  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True)), style="bold")
    text.append("  why\n")
    for line, row in zip(lines, cells, strict=True):
        folded = _fold(line, widths[0])
        why = wrap(_why(line), last, break_long_words=False, break_on_hyphens=False)
        below = f"{_below(line.rules)}{'│' if _goes_on(line, lines) else ' '}"
        for number in range(max(len(folded), len(why), 1)):
            name = folded[number] if number < len(folded) else below
            reason = f"  {why[number]}" if number < len(why) else ""
            if number and not reason:
                text.append(name.rstrip() + "\n")
                continue
            text.append(name.ljust(widths[0]))
            for i in range(1, len(head)):
                style = COLOURS.get(row[i], "") if i == 2 else "dim"
                blank = i == len(head) - 1 and not reason
                cell = row[i] if number == 0 else ""
                text.append("  " + (cell if blank else cell.ljust(widths[i])), style=style)
            text.append(f"{reason}\n")
    out.print(text, soft_wrap=True, end="")


def _cells(line: Line, sizes: bool, costs: bool) -> list[str]:
    row, known = line.rows[0], [row.size for row in line.rows if row.size is not None]
    cost = row.cost or ""
    return [
        line.rules + line.name,
        row.kind if len(line.rows) == 1 else f"{len(line.rows)} {row.kind}",
        row.state,
        *([size_text(sum(known)) if known else ""] if sizes else []),
        *([cost if len(cost) <= COST else f"{cost[: COST - 1]}…"] if costs else []),
    ]


def _fold(line: Line, width: int) -> list[str]:
    """The name, in as many lines as it takes; those after the first are indented."""
    room = max(8, width - len(line.rules))
    parts = wrap(line.name, room, subsequent_indent="  ", break_on_hyphens=False)
    return [f"{line.rules}{parts[0]}", *(f"{_below(line.rules)}{part}" for part in parts[1:])]


def _below(rules: str) -> str:
    return rules.replace("├─", "│ ").replace("└─", "  ")


def _goes_on(line: Line, lines: list[Line]) -> bool:
    """Whether something hangs below a line."""
    number = lines.index(line)
    return number + 1 < len(lines) and len(lines[number + 1].rules) > len(line.rules)


def _why(line: Line, most: int = 4) -> str:
    more = [f"and {len(line.reasons) - most} more"] if len(line.reasons) > most else []
    beside = f"with {', '.join(line.beside)}" if line.beside else ""
    return "; ".join([part for part in (*line.reasons[:most], *more, beside) if part])


def print_outlook(plan: Plan, cost: Outlook, home: Path) -> None:
    """What is still to be spent, and what is missing."""
    out = console()
    out.print()
    for line in summary(plan, cost):
        out.print(line, soft_wrap=True, markup=False)
    if cost.missing:
        out.print(f"missing (raw files are looked for in {home / 'raw'}):", soft_wrap=True, markup=False)
        for item in cost.missing:
            size = _missing_size(item)
            out.print(f"  {item.source}{f', {size}' if size else ''}", soft_wrap=True, markup=False)
            for todo in item.todo:
                out.print(f"    {todo}", soft_wrap=True, markup=False)


def summary(plan: Plan, cost: Outlook) -> list[str]:
    """The outlook in a few lines."""
    states = [row.state for row in plan.rows]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    lines = [f"{len(states)} stages: {', '.join(counts)}"]
    if cost.hours:
        on = f" on {cost.hardware}" if cost.hardware else ""
        lines.append(
            f"published training time still to spend: {cost.hours:g} h{on}, {cost.gpu_hours:g} GPU hours"
        )
    for words, stages in cost.other.items():
        lines.append(f"  and {words}: {', '.join(stages)}")
    if cost.unpublished:
        lines.append(f"  not published: {', '.join(cost.unpublished)}")
    if cost.download or cost.missing:
        at_least = "" if all(item.complete for item in cost.missing) else "at least "
        lines.append(
            f"to download: {at_least}{size_text(cost.download)}; "
            f"{size_text(cost.peak)} of disk while the largest archive is unpacked"
        )
    if cost.artifacts:
        more = f", and {len(cost.unknown)} stages of unknown size" if cost.unknown else ""
        lines.append(f"artifacts still to be made: about {size_text(cost.artifacts)}{more}")
    elif cost.unknown:
        lines.append(f"artifacts still to be made: {len(cost.unknown)} stages, of which no size is known yet")
    if cost.disk:
        least = "" if cost.known else "at least "
        room = "enough" if cost.free >= cost.disk else "NOT ENOUGH"
        lines.append(f"disk: {least}{size_text(cost.disk)} needed, {size_text(cost.free)} free: {room}")
    return lines


def _missing_size(item: Missing) -> str:
    if item.files:
        return f"{len(item.files)} files" if len(item.files) > 1 else "1 file"
    size = size_text(item.size) if item.size else ""
    words = [f"{'' if item.complete else '> '}{size}" if size else ""]
    if not item.complete and not size:
        words = ["size not published"]
    if item.complete and not size:
        words = ["comes with the above"]
    return ", ".join([*words, *(["some of it by hand"] if item.by_hand else [])])


def recipes() -> None:
    """List the recipes that come with partseg."""
    from pipelines.recipe import CONFIGS, profile_names, recipe_names
    from pipelines.yaml_files import read_yaml

    rows = []
    for name in recipe_names():
        data = read_yaml(CONFIGS / "recipes" / f"{name}.yaml")
        rows.append([name, ", ".join(profile_names(name)), str(data.get("description", ""))])
    print_table(["recipe", "profiles", "description"], rows)
