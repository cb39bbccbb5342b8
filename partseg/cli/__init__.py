"""The command line: the one place in partseg that reaches up to ``pipelines`` and ``flows``.

Commands import what they need when they run: ``partseg --help`` loads neither torch nor prefect.
"""

from __future__ import annotations

import importlib.util
import sys

import click
import typer

from partseg.cli import plan, run, status, store
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
    app.add_typer(store.app, name="store")
    if importlib.util.find_spec("partseg.cli.data") is not None:
        data = importlib.import_module("partseg.cli.data")
        app.add_typer(data.app, name="data")
    return app


def main() -> None:
    """Run a command. What a person can mend is one line on stderr and exit code 2."""
    try:
        code = make_app()(standalone_mode=False)
    except PartsegError as error:
        _complain(str(error))
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("stopped; the same command goes on where this one ended")
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
        code = 0
    sys.exit(code)


def _complain(message: str) -> None:
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
