"""A training in a process of its own: started, listened to, stopped, and its end told in words.

What it writes to standard output is one JSON object per line, as :mod:`partseg.training` says; everything
else it writes goes to ``train.log`` in the work folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import site
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from partseg.errors import TrainingError
from partseg.progress import Progress

GRACE = 60
"""Seconds a training that is asked to stop has for the iteration under way and a checkpoint."""
LOG, LOCK = "train.log", "train.lock"
POLL = 1.0
TAIL = 30
"""Lines of the log that an error shows."""
STOPPED = 3
"""Exit code of a training that was asked to stop and left a checkpoint."""

OUT_OF_MEMORY = (
    "give it less at a time: a smaller batch_size (and more schedule.batches), recompute: true, "
    "or fewer --workers"
)


class ChildFailed(RuntimeError):
    """The training ended in a way nobody foresaw: a bug, with the end of its log."""


def run_child(command: Sequence[str], work: Path, report: Progress) -> dict[str, float | int | str]:
    """Run a training command to its end.

    Whatever ends the wait, an error, Ctrl-C or the death of this process, also ends the training and all it
    started; it gets :data:`GRACE` seconds to leave a checkpoint.

    Args:
        command: of one machine's processes.
        work: folder of the training; its log goes there.
        report: gets progress and log.

    Returns:
        The training's metrics.

    Raises:
        TrainingError: something a person can mend, a lack of memory among it; or somebody else stopped it.
        ChildFailed: a bug.
    """
    log = work / LOG
    with alone(work, report) as lock, log.open("ab") as errors:
        events = _Events(report, log, begin=errors.seek(0, os.SEEK_END))
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.guard", str(GRACE), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            pass_fds=(lock.fileno(),),  # held until the guard ends, even if this process is gone
            env=_environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for line in _lines(process, process.stdout):
                events.take(line)
            code = process.wait()
        except BaseException:
            process.stdin.close()  # the guard asks the training to stop
            _await_end(process, process.stdout, events)
            raise
        finally:
            process.stdin.close()
            process.stdout.close()
    return events.outcome(code)


@contextmanager
def alone(work: Path, report: Progress) -> Iterator[IO[bytes]]:
    """Wait until no other training uses the work folder: that of a killed run may still save its state."""
    with (work / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.log("waiting for the training of an earlier run to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield lock


def _environment() -> dict[str, str]:
    """This process' own, in which ``-m`` means this code and not a folder of that name someone works in."""
    changed = {
        "PYTHONSAFEPATH": "1",
        "PET_SHUTDOWN_TIMEOUT": str(GRACE),
    }  # torchrun's patience with its ranks
    root = str(Path(__file__).parents[1])
    if root not in site.getsitepackages():
        changed["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **changed}


def _lines(process: subprocess.Popen[bytes], output: IO[bytes]) -> Iterator[str]:
    """Whole lines as they come, until the guard is gone; what survived it may hold the pipe open."""
    rest = b""
    while True:
        if select.select([output], [], [], POLL)[0]:
            chunk = os.read(output.fileno(), 1 << 16)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        elif process.poll() is not None:
            break
    if rest:
        yield rest.decode(errors="replace")


def _await_end(process: subprocess.Popen[bytes], output: IO[bytes], events: _Events) -> None:
    """Wait for a training that was asked to stop; interrupted meanwhile, have it killed."""
    try:
        for line in _lines(process, output):
            events.last_words(line)
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()


class _Events:
    """What the training has said so far."""

    def __init__(self, report: Progress, log: Path, *, begin: int) -> None:
        self.report, self.log, self.begin = report, log, begin
        self.metrics: dict[str, float | int | str] | None = None
        self.failure: TrainingError | None = None
        self.stopped = False

    def take(self, line: str) -> None:
        """Act on one line; what is no event goes to the log."""
        event = self._event(line)
        match event.get("event"):
            case "progress":
                self.report.update(event["done"], event["total"], event.get("message", ""))
            case "log":
                self.report.log(event["message"])
            case "finished":
                self.metrics = event["metrics"]
            case "stopped":
                self.stopped = True
            case "failed" if self.failure is None:
                self.failure = TrainingError(event["message"], where=event.get("where"), fix=event.get("fix"))

    def last_words(self, line: str) -> None:
        """One line of a training that is being stopped: nobody looks at its progress any more."""
        event = self._event(line)
        if event.get("event") == "log":
            with suppress(Exception):
                self.report.log(event["message"])

    def outcome(self, code: int) -> dict[str, float | int | str]:
        """The metrics, or the error that tells how the training ended."""
        if self.failure is not None:
            raise self.failure
        if code == 0 and self.metrics is not None:
            return self.metrics
        if self.stopped or code == STOPPED:
            raise TrainingError(
                "somebody stopped the training; it left a checkpoint",
                where=self.log.parent,
                fix="run it again to go on from there",
            )
        said = self._said()
        number = _signal(code, said)
        if number is not None:
            raise self._killed(number)
        if "OutOfMemoryError" in said:
            raise TrainingError("the GPU has not enough memory", where=self.log, fix=OUT_OF_MEMORY)
        lines = said.splitlines()[-TAIL:]
        raise ChildFailed(
            "\n".join([f"the training ended with exit code {code}; the end of {self.log}:", *lines])
        )

    def _killed(self, number: int) -> TrainingError:
        if number == signal.SIGKILL:
            return TrainingError(
                "the training was killed, most likely because the machine had no memory left",
                where=self.log,
                fix=f"{OUT_OF_MEMORY}; run again, it goes on from its last checkpoint",
            )
        if number == signal.SIGBUS:
            return TrainingError(
                "the training died of SIGBUS, most likely because shared memory (/dev/shm) is full",
                where=self.log,
                fix="give --workers 0, or the container more of it (docker run --shm-size)",
            )
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return TrainingError(
            f"the training died of {name}",
            where=self.log,
            fix="see the end of this log; run again, it goes on from its last checkpoint",
        )

    def _event(self, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line)
            if isinstance(event, dict):
                return event
        except ValueError:
            pass
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return {}

    def _said(self) -> str:
        """What this training wrote to its log; at most the last 100 kB."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self.begin, end - 100_000))
            return file.read().decode(errors="replace")


def _signal(code: int, said: str) -> int | None:
    """The signal a training died of; torchrun only tells it in its log."""
    if code < 0 or code > 128:
        return -code if code < 0 else code - 128
    found = re.search(r"exitcode\s*:\s*-(\d+)", said)
    return int(found[1]) if found else None
