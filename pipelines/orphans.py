"""Take a run's children with it when the run is killed.

SIGKILL leaves a process no time to stop its workers or Prefect's temporary server. A tiny watcher
process notes the run's descendants twice a second and ends those that are left when the run is gone. A
training has a guard of its own (:mod:`pipelines.guard`), which gives it time for a checkpoint.
Linux only (it reads /proc); elsewhere nothing is watched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

INTERVAL = 0.5
PATIENCE = 3.0
"""Seconds between the polite signal and the other one."""

Process = tuple[int, str]  # process id and its start time: ids are used again


def start_watcher() -> subprocess.Popen[bytes] | None:
    """Watch over this process' children from now on; None where /proc is missing."""
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        return None
    # Isolated and without site packages: 15 ms and 8 MB. Its own session: Ctrl-C is not for it.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(parent: int) -> None:
    """Wait until ``parent`` is gone, then end what it left behind."""
    known: set[Process] = set()
    while os.getppid() == parent:
        # A guard looked like its parent for the moment between fork and exec.
        known = {(pid, t) for pid, t in known if _start_time(pid) == t and not _is_guard(pid)}
        known |= descendants(parent)
        time.sleep(INTERVAL)
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        left = [pid for pid, started in known if pid != os.getpid() and _start_time(pid) == started]
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, wanted)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(_start_time(pid) == started for pid, started in known):
            time.sleep(0.1)


def descendants(parent: int) -> set[Process]:
    """Every living process below ``parent``, without this one, and without guards and what they guard.

    None where /proc is missing.
    """
    found: set[Process] = set()
    waiting = [parent]
    while waiting:
        pid = waiting.pop()
        if pid != parent and _is_guard(pid):
            continue
        for task in _listed(f"/proc/{pid}/task"):
            with suppress(OSError):
                waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        started = _start_time(pid)
        if pid not in (parent, os.getpid()) and started is not None:
            found.add((pid, started))
    return found


def _is_guard(pid: int) -> bool:
    try:
        return b"\0-m\0pipelines.guard\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:
        return []


def _start_time(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


if __name__ == "__main__":
    watch(int(sys.argv[1]))
