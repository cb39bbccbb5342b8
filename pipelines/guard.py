"""``python -m pipelines.guard SECONDS COMMAND...``: a command whose processes do not outlive their owner.

The guard's standard input is a pipe that its parent holds. When the pipe closes, because the parent wants
that or because it is dead, the command gets SIGTERM and the given seconds to leave a checkpoint; then
everything it started is killed. The guard is a process of its own, in a session of its own, so that a signal
for the parent's process group (Ctrl-C, a cancelled flow run, a closed terminal) neither ends the guard nor
reaches a data loader's processes before the training has saved its state. On Linux it adopts what the command
leaves behind, whatever session that is in; elsewhere only the command itself is stopped.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from pipelines.orphans import descendants

POLL = 0.1
LEFT = 1.0
"""Seconds for helpers that end by themselves when their parent is gone."""
UNKILLABLE = 10.0
"""Seconds after which a process that survives SIGKILL, waiting for a dead disk or device, is given up."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class _Asked:
    """How often the command was asked to stop: once is polite, twice is at once."""

    def __init__(self) -> None:
        self.times = 0
        self._open, self._parent = True, os.getppid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._by_signal)

    def _by_signal(self, *_: object) -> None:
        self.times += 1

    def wait(self) -> None:
        """Wait a little, or until the parent closes the pipe or is gone."""
        if not self._open:
            time.sleep(POLL)
            return
        closed = bool(select.select([0], [], [], POLL)[0]) and not os.read(0, 4096)
        if closed or os.getppid() != self._parent:  # a fork of the parent may hold the pipe open
            self._open = False
            self.times += 1


def guard(grace: float, command: list[str]) -> int:
    """Run the command; returns its exit code, 128 + n where signal n ended it."""
    asked = _Asked()
    prctl = _prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Should somebody kill the guard itself, the command still hears of it.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
    )
    deadline: float | None = None
    while child.poll() is None:
        if asked.times and deadline is None:
            child.terminate()
            deadline = time.monotonic() + grace
        if asked.times > 1 or (deadline is not None and time.monotonic() > deadline):
            child.kill()
        asked.wait()
    end_the_rest(patience=0.0 if asked.times > 1 else LEFT)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def end_the_rest(patience: float) -> None:
    """Wait for what the command left behind, and kill what does not end by itself."""
    start = time.monotonic()
    while left := descendants(os.getpid()):
        if time.monotonic() - start > patience + UNKILLABLE:
            return
        if time.monotonic() - start >= patience:
            for pid, _ in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL / 2)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _prctl() -> Callable[..., object]:
    """Linux' settings of a process; does nothing elsewhere."""
    if sys.platform == "linux":
        found: Callable[..., object] = ctypes.CDLL(None).prctl
        return found
    return lambda *_: None


if __name__ == "__main__":
    sys.exit(guard(float(sys.argv[1]), sys.argv[2:]))
