"""`partseg run`: make a recipe's artifacts and its report."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from partseg.cli import options
from partseg.cli.plan import print_plan
from partseg.cli.tables import console

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.plan import Plan, Selection
    from pipelines.workspace import Workspace

Runner = Literal["local", "dask", "ray"]


def run(
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
    workers: options.Workers = None,
    processes: options.Processes = None,
    nodes: options.Nodes = None,
    rendezvous: options.Rendezvous = None,
    runner: Annotated[
        Runner, typer.Option(help="Who converts raw data: this machine's processes or a cluster.")
    ] = "local",
    runner_address: Annotated[
        str | None, typer.Option(help="Scheduler of a cluster that is up. (Default: one is started here.)")
    ] = None,
    no_prefect: Annotated[
        bool, typer.Option("--no-prefect", help="Run the stages directly, without Prefect.")
    ] = False,
) -> None:
    """Run a recipe: what is in the store already is not made again.

    Stopped or killed at any moment, the same command goes on where this one ended.
    """
    from partseg.errors import RecipeError
    from pipelines.plan import make_plan
    from pipelines.run import check_runnable

    if no_prefect and (runner != "local" or runner_address is not None):
        raise RecipeError("a cluster is used through Prefect", fix="leave out --no-prefect or --runner")
    workspace = options.open_workspace(
        store=store,
        raw=raw,
        workers=workers,
        processes=processes,
        nodes=nodes,
        rendezvous=rendezvous,
    )
    selection = options.make_selection(only, from_, until, force, downstream)
    loaded = options.read_recipe(recipe, profile, set_)
    plan = make_plan(loaded, workspace, selection)
    check_runnable(plan)  # before the table: one line says it
    print_plan(plan)
    # Starting Prefect takes a quarter of a minute: not when there is nothing to do and nobody looks.
    alone = no_prefect or (plan.idle and not os.environ.get("PREFECT_API_URL"))
    try:
        if alone:
            page = _alone(plan, workspace)
        else:
            page = _through_prefect(plan, workspace, selection, set_, runner, runner_address)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on where this one ended", file=sys.stderr)
        raise typer.Exit(130) from None
    if page is not None:
        console().print(f"report: {page}", soft_wrap=True)


def _alone(plan: Plan, workspace: Workspace) -> Path | None:
    from partseg.cli.show import Show
    from pipelines.orphans import start_watcher
    from pipelines.run import run_recipe

    if plan.idle:
        return run_recipe(plan, workspace).page
    start_watcher()
    with Show(plan) as show:
        return run_recipe(plan, workspace, watcher=show).page


def _through_prefect(
    plan: Plan,
    workspace: Workspace,
    selection: Selection,
    sets: list[str] | None,
    runner: Runner,
    runner_address: str | None,
) -> Path | None:
    from partseg.cli.show import Show
    from partseg.errors import PartsegError
    from pipelines.orphans import start_watcher
    from pipelines.recipe import parse_overrides

    try:
        from flows.settings import apply

        apply(workspace.home)
        start_watcher()
        with console().status("starting Prefect"):
            from flows.here import run_here
    except ImportError as error:
        raise PartsegError(
            f"Prefect is not installed ({error})", fix="pip install 'partseg[flows]', or add --no-prefect"
        ) from error
    with Show(plan) as show:
        overrides = parse_overrides(sets or ())
        return run_here(plan, workspace, selection, overrides, show, runner, runner_address)
