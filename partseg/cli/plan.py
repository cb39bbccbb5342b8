"""`partseg plan` and `partseg recipes`: what a run would do, without doing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.tables import print_table, size_text

if TYPE_CHECKING:
    from pipelines.plan import Plan


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a run would do, and why."""
    from pipelines.plan import make_plan

    made = make_plan(
        options.read_recipe(recipe, profile, set_),
        options.open_workspace(store=store, raw=raw),
        options.make_selection(only, from_, until, force, downstream),
    )
    if as_json:
        print(json.dumps(made.as_json(), indent=2))
    else:
        print_plan(made)


def print_plan(plan: Plan) -> None:
    """The plan as a table."""
    costs = any(row.cost for row in plan.rows)
    columns = ["stage", "kind", "state", "size", *(["published cost"] if costs else []), "why"]
    print_table(
        columns,
        [
            [
                row.stage,
                row.kind,
                row.state,
                size_text(row.size),
                *([row.cost or ""] if costs else []),
                _why(row.why),
            ]
            for row in plan.rows
        ],
    )


def _why(reasons: tuple[str, ...], most: int = 4) -> str:
    more = [f"and {len(reasons) - most} more"] if len(reasons) > most else []
    return "; ".join([*reasons[:most], *more])


def recipes() -> None:
    """List the recipes that come with partseg."""
    from pipelines.recipe import CONFIGS, profile_names, recipe_names
    from pipelines.yaml_files import read_yaml

    rows = []
    for name in recipe_names():
        data = read_yaml(CONFIGS / "recipes" / f"{name}.yaml")
        rows.append([name, ", ".join(profile_names(name)), str(data.get("description", ""))])
    print_table(["recipe", "profiles", "description"], rows)
