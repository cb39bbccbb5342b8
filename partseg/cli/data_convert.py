"""``partseg data convert``: raw files to the common layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from partseg.cli.bar import Bar
from partseg.cli.options import Settings, parse_settings
from partseg.cli.tables import console
from partseg.errors import SourceError


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a raw format; see `data list`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the dataset; must not exist yet.")],
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Folder with the raw files; by default that of `data get`.")
    ] = None,
    option: Settings = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 reads in this one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert raw data into a dataset in the common layout.

    Stopped half-way, the same command goes on where it was.
    """
    from partseg.datasets.convert import convert as run
    from pipelines.raw import fetched_folder
    from pipelines.workspace import default_home

    if raw is None:
        raw = fetched_folder(default_home(), source)
        if not raw.is_dir():
            raise SourceError(
                f"no raw files of {source} are known",
                fix=f"name their folder with --raw, or run partseg data get {source}",
            )
    with Bar("records") as bar:
        counts = run(source, raw, out, options=parse_settings(option), workers=workers, report=bar)
    if as_json:
        print(json.dumps(counts))
    else:
        numbers = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
        console().print(f"{out}: {numbers}", soft_wrap=True)
