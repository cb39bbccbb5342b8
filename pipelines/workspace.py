"""Where partseg keeps things on this machine, and the store a command works with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from partseg.store import Store
from pipelines.launch import Launch, Processes

HOME = "PARTSEG_HOME"
STORE = "PARTSEG_STORE"


def default_home() -> Path:
    """``$PARTSEG_HOME``, or ``.partseg`` in the current folder."""
    return Path(os.environ.get(HOME) or ".partseg").expanduser().absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The folders and the store of one command.

    Attributes:
        home: ``work`` (checkpoints), ``cache``, ``runs`` and ``reports`` lie in it.
        store: finished artifacts.
        raw: raw source -> local folder, as given by the user.
        workers: worker processes each stage may start.
        launch: how many processes and machines train.
    """

    home: Path
    store: Store
    raw: Mapping[str, Path] = field(default_factory=dict)
    workers: int = 0
    launch: Launch = field(default_factory=Launch)

    @classmethod
    def open(
        cls,
        *,
        home: Path | None = None,
        store: str | None = None,
        raw: Mapping[str, Path] | None = None,
        workers: int = 0,
        processes: Processes | None = None,
        nodes: int | None = None,
        rendezvous: str | None = None,
    ) -> Workspace:
        """With the defaults: ``$PARTSEG_STORE`` or ``<home>/store``; see :meth:`Launch.choose`.

        Creates nothing.

        Raises:
            RecipeError: processes and nodes make no sense together.
        """
        home = (home or default_home()).expanduser().absolute()
        url = store or os.environ.get(STORE) or str(home / "store")
        return cls(
            home=home,
            store=Store(url, cache=home / "cache"),
            raw={name: Path(folder).expanduser().absolute() for name, folder in (raw or {}).items()},
            workers=workers,
            launch=Launch.choose(processes, nodes, rendezvous),
        )
