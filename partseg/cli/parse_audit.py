"""``partseg parse audit``: parsed parts against true ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.tables import console, print_table
from partseg.errors import PartsegError

if TYPE_CHECKING:
    from partseg.cli.parse_inputs import Truth
    from partseg.evaluation.parse_audit import ParseAudit
    from partseg.report.evaluation_tables import NumberTable

MOST_ROWS = 40
"""Lines of the tables of labels and parts; ``--json`` and ``--output`` have all."""

MOST_CONFUSED = 12


def audit(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or the path of a YAML file.")
    ] = None,
    stage: Annotated[str | None, typer.Argument(help="A parse stage of the recipe.")] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE|DIR[/SPLIT]",
            help="Where true parts of these images are known. (Default: what the images came with, or the "
            "made-up world.)",
        ),
    ] = None,
    parsed: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A parsed dataset in a folder instead of a stage.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the parsed dataset. (Default: the stage's, or the only one.)")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Also write a page.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write JSON.")] = None,
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    set_: options.Set = None,
) -> None:
    """Say how many parsed parts are right, and how many true parts were found.

    A part is right if its box overlaps a true part of the same name by at least one half. The truth need not
    have all of the images: what it lacks is counted and left out.
    """
    from partseg.evaluation.parse_audit import audit_parse
    from partseg.files import write_file

    if output is not None and output.suffix != ".html":
        raise PartsegError(f"--output {output} is no page", fix="name it .html")
    with _opened(recipe, stage, parsed, truth, split, profile, raw, store, set_) as (own, known):
        found = audit_parse(
            own.dataset.split(own.split),
            own.dataset.categories,
            known.dataset.split(known.split),
            known.dataset.categories,
        )
        found.check(known.name)
        if output is not None:
            from partseg.report.parse_audit_page import write_audit_page

            write_audit_page(found, own.name, known.name, output)
    if json_file is not None:
        import orjson

        content = {"parsed": own.name, "truth": known.name, **found.as_dict()}
        write_file(json_file, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    _print(found, own.name, known.name)
    written = [str(path) for path in (json_file, output) if path is not None]
    if written:
        console().print(f"written: {' and '.join(written)}", soft_wrap=True, markup=False)


@contextmanager
def _opened(
    recipe: str | None,
    stage: str | None,
    parsed: Path | None,
    truth: str | None,
    split: str | None,
    profile: str | None,
    raw: list[str] | None,
    store: str | None,
    sets: list[str] | None,
) -> Iterator[tuple[Truth, Truth]]:
    """The parsed split and the true one."""
    from partseg.cli.parse_inputs import Truth, chosen_split, parse_stage, truth_in_folder, truth_of
    from partseg.layout import Dataset

    if (parsed is None) == (recipe is None):
        raise PartsegError("what shall be compared?", fix="give either RECIPE STAGE or --parsed DIR")
    if parsed is not None:
        if truth is None:
            raise PartsegError("what is true?", fix="name a dataset: --truth DIR[/SPLIT]")
        own = chosen_split(Dataset.open(parsed), split or "", "train", str(parsed))
        yield own, truth_in_folder(truth, own.split)
        return
    if recipe is None or stage is None:
        raise PartsegError("which stage?", fix="give RECIPE STAGE, for instance: demo parsed")
    opened = parse_stage(recipe, stage, profile=profile, raw=raw, store=store, sets=sets)
    dataset, name = opened.parsed(), split or opened.params.split
    dataset.split(name)
    with truth_of(opened, truth, name) as known:
        yield Truth(dataset=dataset, split=name, name=f"{opened.plan.recipe.label} {stage}"), known


def _print(found: ParseAudit, name: str, truth: str) -> None:
    from partseg.report import parse_tables as tables

    console().print(f"{name} against {truth}", soft_wrap=True, markup=False)
    console().print(tables.images_text(found.images), soft_wrap=True, markup=False)
    if found.quality.other_objects:
        print(
            f"{found.quality.other_objects:,} true parts belong to other objects than the labels; a parser "
            "cannot name them, they are left out"
        )
    _print_table(tables.overview(found))
    for path, cuts in found.quality.cuts.items():
        if path != "all" or len(found.quality.cuts) == 1:
            print(f"What min_confidence would leave{f', found by {path}' if path != 'all' else ''}:")
            _print_table(tables.cuts(cuts))
    _print_table(tables.short(tables.labels(found)))
    _print_table(tables.short(tables.parts(found)))
    _print_table(tables.confusion(found, MOST_CONFUSED), MOST_CONFUSED)


def _print_table(table: NumberTable | None, most: int = MOST_ROWS) -> None:
    if table is None:
        return
    print_table(table.columns, table.rows[:most], last_wraps=False)
    if len(table.rows) > most:
        print(f"and {len(table.rows) - most:,} more; --json and --output have all")
