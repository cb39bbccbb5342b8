"""`partseg diff`: why two artifacts, two recipes or two runs differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from partseg.cli import options
from partseg.cli.store_names import find_artifact
from partseg.cli.tables import console, print_table
from partseg.errors import PartsegError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partseg.store import Action, Store
    from pipelines.compare import Built, Cause, Comparison
    from pipelines.workspace import Workspace

Side = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT|RECIPE|RUN",
        help="RECIPE/STAGE (its last artifact), a pin, the start of a key; a recipe (such as demo@smoke) or "
        "the start of a run's id: all its stages.",
    ),
]
MOST = 20


def diff(
    first: Side,
    second: Side,
    store: options.StoreUrl = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every difference.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why two artifacts differ: the first ancestors that were made in another way, and how.

    Two recipes or two runs are compared stage by stage. Exit code 0: same content; 1: different; 2: an error.
    """
    from pipelines.compare import compare_artifacts, compare_stages, file_changes

    workspace = options.open_workspace(store=store)
    opened = workspace.store
    sides = [_stages(workspace, name) for name in (first, second)]
    changes: list[str] = []
    if sides[0] is not None and sides[1] is not None:
        found = compare_stages(opened, sides[0], sides[1])
    elif sides[0] is None and sides[1] is None:
        a, b = find_artifact(opened, first), find_artifact(opened, second)
        found = compare_artifacts(opened, a, b)
        changes = file_changes(opened, a, b)
    else:
        whole, one = (first, second) if sides[0] is not None else (second, first)
        raise PartsegError(
            f"{whole} is all stages of a recipe or run, {one} is one artifact", fix=f"write {whole}/STAGE"
        )
    if as_json:
        print(json.dumps({"same": found.same, **asdict(found), "files": changes}, indent=2))
    else:
        _print(found, changes, None if everything else MOST)
    raise typer.Exit(0 if found.same else 1)


def _stages(workspace: Workspace, name: str) -> dict[str, Built] | None:
    """The stages of a recipe or run; None for the name of an artifact."""
    from pipelines.manifest import read_runs

    store = workspace.store
    keys = {stage: key for (recipe, stage), key in store.refs().items() if recipe == name}
    if keys:
        found = ((stage, store.action(key)) for stage, key in keys.items())
        return {stage: (stage, action, action.tree) for stage, action in found if action is not None}
    runs = [run for run in read_runs(workspace.home) if str(run["run_id"]).startswith(name)]
    if "/" in name or not runs or _is_artifact(store, name):
        return None
    if len(runs) > 1:
        raise PartsegError(
            f"{len(runs)} runs have an id that starts with {name}", where=workspace.home / "runs"
        )
    return {
        row["stage"]: (row["stage"], store.action(row["key"]), row["digest"])
        for row in runs[0]["stages"]
        if row.get("key") and row.get("digest")
    }


def _is_artifact(store: Store, name: str) -> bool:
    try:
        found: Action | None = find_artifact(store, name)
    except PartsegError:
        return False
    return found is not None


def _print(found: Comparison, changes: Sequence[str], most: int | None) -> None:
    if len(found.rows) > 1:
        rows = [[row.stage, row.state, (row.first or "")[:12], (row.second or "")[:12]] for row in found.rows]
        print_table(["stage", "", "first", "second"], rows)
    if found.same:
        print(f"same content{', made in two ways' if found.causes else ''}")
    for cause in found.causes:
        if found.same:
            _print_some(cause.reasons, most, "  ")
        else:
            _print_cause(cause, most)
    _print_some(changes, most, "")


def _print_cause(cause: Cause, most: int | None) -> None:
    name = cause.first if cause.first == cause.second else f"{cause.first} and {cause.second}"
    way = f" [dim](for {escape(' -> '.join(cause.way))})[/]" if cause.way else ""
    console().print(f"[bold]{escape(name)}[/] differs{way}", soft_wrap=True)
    _print_some(cause.reasons, most, "  ")
    if cause.builds:
        console().print(f"  [dim]built with other {escape(', '.join(cause.builds))}[/]", soft_wrap=True)


def _print_some(lines: Sequence[str], most: int | None, indent: str) -> None:
    for line in lines[:most]:
        print(f"{indent}{line}")
    if len(lines) > len(lines[:most]):
        print(f"{indent}and {len(lines) - len(lines[:most])} more; --all prints them")
