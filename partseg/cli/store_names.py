"""What people call artifacts, and the store a command opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.errors import MissingArtifact, PartsegError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from partseg.store import Action, Store

ArtifactName = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="RECIPE/STAGE (its last artifact), the name of a pin, or the start of a key."
    ),
]


def open_store(url: str | None) -> Store:
    """The store at ``url``, or the one a command works with if there is none."""
    return options.open_workspace(store=url).store


def find_artifact(store: Store, name: str) -> Action:
    """The record of an artifact.

    Raises:
        PartsegError: there is no such one, or there are several.
    """
    recipe, slash, stage = name.rpartition("/")
    pin = None if slash else store.pins().get(name)
    if not slash and pin is None:
        return store.find(name)
    key = pin.key if pin is not None else store.ref(recipe, stage)
    action = None if key is None else store.action(key)
    if action is None:
        raise PartsegError(f"no artifact of {name} in the store", where=store.url)
    return action


def find_artifacts(store: Store, names: Iterable[str]) -> dict[str, list[Action]]:
    """Name -> records: those of all stages of a recipe, or the one of an artifact.

    Raises:
        PartsegError: there is no such recipe or artifact.
    """
    refs, found = store.refs(), {}
    for name in names:
        keys = [key for (recipe, _), key in refs.items() if recipe == name]
        found[name] = list(store.actions(dict.fromkeys(keys))) if keys else [find_artifact(store, name)]
        if not found[name]:
            raise MissingArtifact(f"no artifact of {name} is left in the store", where=store.url)
    return found
