"""``partseg data``: from raw files to a checked dataset, and out again."""

from __future__ import annotations

import typer

from partseg.cli.data_cache import cache
from partseg.cli.data_check import check
from partseg.cli.data_convert import convert
from partseg.cli.data_export import export
from partseg.cli.data_get import get, list_
from partseg.cli.data_look import show, stats
from partseg.cli.data_synthetic import synthetic

app = typer.Typer(help="Get, convert, check, look at and export datasets.", no_args_is_help=True)

app.command("list")(list_)
for _command in (get, convert, check, stats, show, export, synthetic, cache):
    app.command()(_command)
