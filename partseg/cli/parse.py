"""``partseg parse``: look at a parse, and compare it with what is true."""

from __future__ import annotations

import typer

from partseg.cli.parse_audit import audit
from partseg.cli.parse_show import show

app = typer.Typer(
    help="Decide whether to trust parsed part labels: look at them, compare them with the truth.",
    no_args_is_help=True,
)

for _command in (show, audit):
    app.command()(_command)
