"""`partseg store pin, pins, unpin, gc`: what to keep, and what may go."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from partseg.cli import options
from partseg.cli.store_names import ArtifactName, find_artifact, open_store
from partseg.cli.tables import print_table, size_text
from partseg.errors import StoreError

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")

PinName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the pin.")]


def _bytes(text: str) -> int:
    """``50GB`` as bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?B)", text)
    if found is None:
        raise typer.BadParameter(f"{text} is not a size; write it like 500MB or 1.5TB")
    return round(float(found[1]) * _UNITS[found[2]])


def pin(name: PinName, artifact: ArtifactName, store: options.StoreUrl = None) -> None:
    """Keep an artifact, and what it was made from, whatever gc does; commands know it as NAME from now on."""
    from pipelines.manifest import now

    if _PIN.fullmatch(name) is None:
        raise StoreError(f"{name} is no name for a pin", fix="use letters, digits and . _ @ -")
    opened = open_store(store)
    action = find_artifact(opened, artifact)
    opened.pin(name, action.key, since=now())
    print(f"pinned {action.key[:12]} as {name}")


def pins(store: options.StoreUrl = None) -> None:
    """List the pins."""
    opened = open_store(store)
    rows = []
    for found in opened.pins().values():
        action = opened.action(found.key)
        what = action.name if action is not None else "(not in the store)"
        size = size_text(action.facts.get("size")) if action is not None else ""
        rows.append([found.name, found.key[:12], size, found.since[:19], what])
    print_table(["pin", "key", "size", "since", "artifact"], rows)


def unpin(name: PinName, store: options.StoreUrl = None) -> None:
    """Take a pin back; the artifact stays until gc finds that nobody needs it."""
    opened = open_store(store)
    opened.unpin(name)
    print(f"unpinned {name}")


def gc(
    store: options.StoreUrl = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Really delete; without it nothing is touched.")
    ] = False,
    keep_recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPE",
            help="Only recipes given like this count: NAME with all profiles, NAME@PROFILE, or a YAML file. "
            "(Default: all that made something in this store.)",
        ),
    ] = None,
    raw: options.Raw = None,
    grace: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Keep what is younger than this.")
    ] = 7.0,
    max_size: Annotated[
        Any,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Remove only as much as it takes to come down to this (such as 50GB), least recently used "
            "artifacts first. (Default: remove all that is not needed.)",
        ),
    ] = None,
) -> None:
    """Free the space of artifacts that nobody needs any more; a dry run by default.

    Kept are the last artifacts of recipes, what their plans find now, pins, what is being built at this
    moment and what is young, each with all that it was made from.
    """
    from partseg.store.gc import DAY, collect, find_garbage
    from pipelines.roots import recipe_roots

    workspace = options.open_workspace(store=store, raw=raw)
    opened = workspace.store
    roots = recipe_roots(workspace, keep_recipe)
    garbage = find_garbage(opened, grace=grace * DAY, max_size=max_size, roots=roots)
    for key in garbage.keys:
        action = opened.action(key)
        print(f"{key[:12]} {size_text(garbage.sizes[key]):>8} {action.name if action else ''}".rstrip())
    if delete:
        collect(opened, garbage)
    verb = "freed" if delete else "would free"
    count = f"{len(garbage.keys)} artifacts and {len(garbage.files)} files"
    print(f"{verb} {size_text(garbage.size)}: {count}{'' if delete else '; --delete does it'}")
    if max_size is not None and garbage.left > max_size:
        why = f"needed by recipes, pinned, being built or younger than {grace:g} days"
        print(f"{size_text(garbage.left)} stay, more than {size_text(max_size)}: they are {why}")
