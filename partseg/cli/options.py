"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.errors import RecipeError, SourceError

if TYPE_CHECKING:
    from pipelines.plan import Selection
    from pipelines.recipe import Recipe
    from pipelines.workspace import Workspace

RecipeName = Annotated[str, typer.Argument(help="Name of a recipe, or the path of a YAML file.")]
Profile = Annotated[str | None, typer.Option(help="Profile to merge over the recipe.")]
Raw = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE=DIR", help="Folder with the raw files of a source; PARTSEG_RAW_<SOURCE> too."
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(help="Folder or URL of the store. (Default: $PARTSEG_STORE or <home>/store.)"),
]
Only = Annotated[
    list[str] | None, typer.Option(metavar="STAGE", help="Only this stage; inputs from the store.")
]
From = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="STAGE", help="This stage and everything made from it, again."),
]
Until = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="This stage and all it is made from.")]
Force = Annotated[
    list[str] | None, typer.Option(metavar="STAGE", help="Run this stage even if it is cached.")
]
Downstream = Annotated[bool, typer.Option("--downstream", help="Force what is made from forced stages, too.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.PARAM=VALUE", help="Change a parameter of a stage."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="Setting of the source; VALUE is YAML."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Worker processes each stage may start. (Default: one per core.)")
]
Processes = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Processes that train, or one per GPU; 0 trains in this one. "
        "(Default: $PARTSEG_PROCESSES or 1.)",
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Machines that train, this one and others that share the home folder. "
        "(Default: $PARTSEG_NODES or 1.)",
    ),
]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where the other machines find this one. (Default: $PARTSEG_RENDEZVOUS.)",
    ),
]


def read_recipe(name: str, profile: str | None, sets: Sequence[str] | None) -> Recipe:
    """The recipe a command names."""
    from pipelines.recipe import load_recipe, parse_overrides

    return load_recipe(name, profile=profile, overrides=parse_overrides(sets or ()))


def parse_raw(texts: Sequence[str] | None) -> dict[str, Path]:
    """``["pascal_part=~/data"]`` as a mapping."""
    found = {}
    for text in texts or ():
        source, equals, folder = text.partition("=")
        if not equals or not source or not folder:
            raise RecipeError(f"--raw {text} is not understood", fix="write --raw SOURCE=DIR")
        found[source] = Path(folder)
    return found


def parse_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """``["splits=[val]"]`` as a mapping; values are YAML."""
    import yaml

    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SourceError(f"--option {text} is not understood", fix="write --option NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SourceError(f"--option {text} is not YAML ({error})", fix="quote the value") from error
    return found


def open_workspace(
    *,
    store: str | None = None,
    raw: Sequence[str] | None = None,
    workers: int | None = None,
    processes: str | None = None,
    nodes: int | None = None,
    rendezvous: str | None = None,
) -> Workspace:
    """The folders and the store of a command, and what trains."""
    from pipelines.launch import parse_processes
    from pipelines.workspace import Workspace

    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Workspace.open(
        store=store,
        raw=parse_raw(raw),
        workers=workers,
        processes=None if processes is None else parse_processes(processes, where="--processes"),
        nodes=nodes,
        rendezvous=rendezvous,
    )


def make_selection(
    only: Sequence[str] | None,
    from_: Sequence[str] | None,
    until: Sequence[str] | None,
    force: Sequence[str] | None,
    downstream: bool,
) -> Selection:
    """The stages a command names."""
    from pipelines.plan import Selection

    return Selection(
        only=tuple(only or ()),
        from_=tuple(from_ or ()),
        until=tuple(until or ()),
        force=tuple(force or ()),
        downstream=downstream,
    )
