"""Seeing a run go by: what a watcher is told, and how a stage's progress gets there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pipelines.manifest import Manifest, now
from pipelines.plan import Row

Outcome = Literal["built", "cached", "skipped"]

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress reports that are passed on: stages report from inner loops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one stage went.

    Attributes:
        stage: its name.
        kind: its kind.
        state: built now, found in the store, or not selected.
        why: reasons, from the plan.
        key: what the artifact was made from.
        digest: content digest; None for a skipped stage without an artifact.
        seconds: wall time in this run.
        built_seconds: wall time when the artifact was built.
        size: bytes of the artifact.
        metrics: what the stage measured when it was built.
    """

    stage: str
    kind: str
    state: Outcome
    why: tuple[str, ...] = ()
    key: str | None = None
    digest: str | None = None
    seconds: float = 0.0
    built_seconds: float | None = None
    size: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Watcher(Protocol):
    """Whoever wants to see a run go by. Called from the thread that runs the stages; nothing is done here."""

    def started(self, row: Row) -> None:
        """A stage is looked at now."""
        return

    def building(self, row: Row) -> None:
        """It is not in the store: it runs."""
        return

    def progress(self, stage: str, done: int, total: int, message: str) -> None:
        """``done`` of ``total`` steps."""
        return

    def log(self, stage: str, message: str) -> None:
        """A line of the stage's log."""
        return

    def finished(self, result: Result) -> None:
        """The stage ended well."""
        return

    def failed(self, row: Row, error: BaseException) -> None:
        """The stage did not."""
        return


class Unwatched(Watcher):
    """Nobody looks."""


@dataclass(slots=True)
class StageProgress:
    """Passes a stage's progress on: to the watcher, now and then, and to the manifest.

    Attributes:
        stage: its name.
        folder: of the run; the stage's log goes there.
        manifest: of the run.
        watcher: told how it goes.
    """

    stage: str
    folder: Path
    manifest: Manifest
    watcher: Watcher
    _last: float = 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` steps."""
        moment = time.monotonic()
        if moment - self._last < PROGRESS_INTERVAL and done < total:
            return
        self._last = moment
        for entry in self.manifest.data["stages"]:
            if entry["stage"] == self.stage:
                entry["progress"] = {"done": done, "total": total, "message": message}
        self.watcher.progress(self.stage, done, total, message)

    def log(self, message: str) -> None:
        """A line of the stage's log."""
        with (self.folder / f"{self.stage}.log").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {message}\n")
        self.watcher.log(self.stage, message)
