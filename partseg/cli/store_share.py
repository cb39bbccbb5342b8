"""`partseg store push, pull`: copy finished work between stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.bar import Bar
from partseg.cli.store_names import find_artifacts, open_store
from partseg.cli.tables import print_table, size_text
from partseg.errors import StoreError

if TYPE_CHECKING:
    from partseg.store import Action, Store

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE|ARTIFACT]...",
        help="A recipe (all its stages; with its profile, such as demo@smoke) or an artifact (RECIPE/STAGE, "
        "a pin, or the start of a key), with what it was made from. (Default: all that recipes name.)",
    ),
]
Alone = Annotated[
    bool, typer.Option("--alone", help="Only the artifacts given, not what they were made from.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be copied, and its size.")]


def push(
    to: Annotated[str, typer.Argument(metavar="URL", help="Folder or URL of the other store.")],
    what: What = None,
    alone: Alone = False,
    dry_run: DryRun = False,
    store: options.StoreUrl = None,
) -> None:
    """Copy artifacts from the store to another one; stopped, the same command goes on where it ended."""
    _copy(open_store(store), open_store(to), what, alone=alone, dry_run=dry_run)


def pull(
    origin: Annotated[str, typer.Argument(metavar="URL", help="Folder or URL of the other store.")],
    what: What = None,
    alone: Alone = False,
    dry_run: DryRun = False,
    store: options.StoreUrl = None,
) -> None:
    """Copy artifacts from another store to this one; stopped, the same command goes on where it ended."""
    _copy(open_store(origin), open_store(store), what, alone=alone, dry_run=dry_run)


def _copy(source: Store, target: Store, what: list[str] | None, *, alone: bool, dry_run: bool) -> None:
    from partseg.store.sync import plan_transfer, transfer

    chosen = _chosen(source, what, alone=alone)
    plan = plan_transfer(source, target, chosen)
    if dry_run:
        rows = [[action.key[:12], size_text(tree.size), action.name] for action, tree in plan.moves]
        if rows:
            print_table(["key", "size", "artifact"], rows)
        print(
            f"would copy {len(plan.moves)} artifacts to {target.url}: {size_text(plan.size)} in "
            f"{len(plan.blobs)} files; {len(plan.there)} are there already"
        )
        return
    with Bar("MB") as bar:
        transfer(source, target, plan, report=_InMegabytes(bar))
    for action, _ in plan.moves:
        print(f"copied {action.key[:12]} {action.name}".rstrip())
    for (recipe, stage), key in source.refs().items():
        if key in chosen:
            target.set_ref(recipe, stage, key)
    print(f"{len(chosen)} artifacts are in {target.url}; {size_text(plan.size)} copied")


def _chosen(source: Store, what: list[str] | None, *, alone: bool) -> dict[str, Action]:
    from partseg.store.lineage import chain

    if not what:
        found = {action.key: action for action in source.actions(dict.fromkeys(source.refs().values()))}
        if not found:
            raise StoreError("there is nothing to copy", where=source.url)
        return found
    given = [action for actions in find_artifacts(source, what).values() for action in actions]
    return {action.key: action for action in given} if alone else chain(source, given)


class _InMegabytes:
    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def update(self, done: int, total: int, message: str = "") -> None:
        self.bar.update(done // 10**6, -(-total // 10**6), message)

    def log(self, message: str) -> None:
        self.bar.log(message)
