"""The command line: the one place in partseg that reaches up to ``pipelines`` and ``flows``.

Commands import what they need when they run: ``partseg --help`` loads neither torch nor prefect.
"""

from __future__ import annotations

import sys

import typer

from partseg.cli import (
    bench,
    data,
    diff,
    evaluate,
    parse,
    plan,
    predict,
    run,
    status,
    store,
    vocabulary,
    weights,
    zoo,
)
from partseg.errors import PartsegError

HELP = "Part segmentation from raw files to a report."


def make_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="partseg",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("run")(run.run)
    app.command("plan")(plan.plan)
    app.command("status")(status.status)
    app.command("recipes")(plan.recipes)
    app.command("predict")(predict.predict)
    app.command("evaluate")(evaluate.evaluate)
    app.command("diff")(diff.diff)
    app.add_typer(store.app, name="store")
    app.add_typer(data.app, name="data")
    app.add_typer(vocabulary.app, name="vocabulary")
    app.add_typer(parse.app, name="parse")
    app.add_typer(weights.app, name="weights")
    app.add_typer(bench.app, name="bench")
    app.add_typer(zoo.app, name="zoo")
    return app


def main() -> None:
    """Run a command. What a person can mend is one line on stderr and exit code 2."""
    try:
        make_app()()
    except PartsegError as error:
        sys.stdout.flush()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
