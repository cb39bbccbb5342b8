"""The record of one run, kept by the run itself: which stages, how far, still alive?

Prefect's embedded database loses records and an interrupted run stays "running" in it for ever; this
file has a heartbeat, so that a dead run can be told from a slow one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from partseg.files import write_file
from partseg.store.lease import is_gone, this_process
from partseg.store.trees import canonical_json

BEAT = 5.0
"""Seconds between two beats."""
DEAD = 60.0
"""Seconds without a beat after which a run of another machine counts as dead."""


class Manifest:
    """``runs/<run_id>/run.json``, replaced as a whole every few seconds while the run goes on."""

    def __init__(self, folder: Path, data: Mapping[str, Any]) -> None:
        self.folder = folder
        self.data: dict[str, Any] = {**data, "owner": this_process(), "state": "running", "started": now()}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="run manifest", daemon=True)

    def __enter__(self) -> Manifest:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.save()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if error is not None:
            self.data["state"] = "failed" if isinstance(error, Exception) else "stopped"
            self.data["error"] = str(error) or type(error).__name__
        elif self.data["state"] == "running":
            self.data["state"] = "done"
        self.data["finished"] = now()
        self.save()

    def save(self) -> None:
        """Write the present state."""
        with self._lock:
            self.data["beat"] = now()
            write_file(self.folder / "run.json", canonical_json(self.data))

    def _keep_beating(self) -> None:
        while not self._done.wait(BEAT):
            with suppress(OSError, RuntimeError):  # a full disk must not end the run by way of its record
                self.save()


def read_runs(home: Path) -> list[dict[str, Any]]:
    """Every run under ``home``, newest first; one that stopped without saying so has state ``dead``."""
    runs = []
    for path in (home / "runs").glob("*/run.json"):
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if data["state"] == "running" and _is_dead(data):
            data["state"] = "dead"
        runs.append(data)
    return sorted(runs, key=lambda run: str(run["started"]), reverse=True)


def _is_dead(data: Mapping[str, Any]) -> bool:
    silent = time.time() - datetime.fromisoformat(str(data["beat"])).timestamp()
    return is_gone(data["owner"]) or silent > DEAD


def now() -> str:
    """The present time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
