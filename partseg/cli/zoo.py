"""``partseg zoo``: published models, and how near ours are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.tables import print_table, seconds_text

if TYPE_CHECKING:
    from pipelines.plan import Plan
    from pipelines.workspace import Workspace

app = typer.Typer(
    help="Published models: their numbers, what of them is in the store, and how near ours are.",
    invoke_without_command=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RowName = Annotated[str, typer.Argument(metavar="ROW", help="A published row; `partseg zoo` lists them.")]


@app.callback()
def table(
    context: typer.Context,
    profile: options.Profile = None,
    store: options.StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the published rows, what of them is in the store, and our numbers beside theirs."""
    if context.invoked_subcommand is not None:
        return
    from partseg.cli.zoo_tables import print_zoo
    from pipelines.zoo import read_zoo, zoo_names
    from pipelines.zoo_state import zoo_states

    opened = options.open_workspace(store=store).store
    zoos = [(zoo, zoo_states(zoo, opened, profile=profile)) for zoo in map(read_zoo, zoo_names())]
    if as_json:
        print(json.dumps([state.as_json() for _, states in zoos for state in states], indent=2))
        return
    for zoo, states in zoos:
        print_zoo(zoo, states, profile)


@app.command()
def show(
    row: RowName,
    profile: options.Profile = None,
    store: options.StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one row: recipe, stages, published cost, and its numbers beside ours."""
    from partseg.cli.zoo_tables import print_numbers, print_row
    from pipelines.recipe import load_recipe
    from pipelines.zoo import find_row
    from pipelines.zoo_state import in_store, labels_of, row_state

    zoo, found = find_row(row)
    recipe = load_recipe(zoo.recipe_of(found), profile=profile)
    opened = options.open_workspace(store=store).store
    there = in_store(recipe, opened, labels_of(zoo, profile))
    state = row_state(zoo, found, recipe, opened, there)
    if as_json:
        print(json.dumps(state.as_json(), indent=2))
        return
    print_row(state, profile)
    print_table(
        ["stage", "kind", "published cost", "state"],
        [
            [
                name,
                recipe.stages[name].kind.name,
                str(recipe.published.get(name, {}).get("cost", "")),
                f"in the store, {seconds_text(there[name].facts.get('seconds')) or 'made elsewhere'}"
                if name in there
                else "not in the store",
            ]
            for name in state.chain
        ],
    )
    print_numbers(state)


@app.command()
def check(
    row: RowName,
    weights: Annotated[
        Path, typer.Option("--weights", metavar="FILE", help="The released checkpoint, or a file of yours.")
    ],
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    set_: options.Set = None,
    workers: options.Workers = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate weights as the row was, and compare with its published numbers. Nothing is trained."""
    from partseg.cli.plan import print_plan
    from partseg.cli.zoo_tables import print_numbers, print_row
    from pipelines.plan import make_plan
    from pipelines.zoo import find_row
    from pipelines.zoo_check import check_ready, check_recipe, weights_root
    from pipelines.zoo_state import row_state

    zoo, found = find_row(row)
    folder = weights_root(weights, options.parse_raw(raw).get("weights"))
    recipe = check_recipe(options.read_recipe(zoo.recipe_of(found), profile, set_), found, weights)
    others = [text for text in raw or () if not text.startswith("weights=")]
    workspace = options.open_workspace(store=store, raw=[*others, f"weights={folder}"], workers=workers)
    plan = make_plan(recipe, workspace)
    if only_plan:
        if as_json:
            print(json.dumps(plan.as_json(), indent=2))
        else:
            print_plan(plan)
        return
    check_ready(plan)
    keys = _run(plan, workspace, quietly=as_json)
    there = {name: action for name, key in keys.items() if (action := workspace.store.action(key))}
    state = row_state(zoo, found, recipe, workspace.store, there)
    if as_json:
        print(json.dumps({**state.as_json(), "weights": str(weights)}, indent=2))
        return
    print_row(state, profile, weights=weights)
    print_numbers(state)


def _run(plan: Plan, workspace: Workspace, *, quietly: bool) -> dict[str, str]:
    """Run a plan without Prefect; returns the key of every stage."""
    from partseg.cli.show import Show
    from pipelines.orphans import start_watcher
    from pipelines.run import run_recipe

    start_watcher()
    try:
        if quietly:
            run = run_recipe(plan, workspace)
        else:
            with Show(plan) as watcher:
                run = run_recipe(plan, workspace, watcher=watcher)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on where this one ended", file=sys.stderr)
        raise typer.Exit(130) from None
    return {name: result.key for name, result in run.results.items() if result.key is not None}
