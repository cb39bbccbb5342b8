"""``python -m partseg.training job.json``: one training, described by one file.

For trainings in processes of their own: beside the run that wants them, on other machines, or where a
scheduler starts and stops them. Under ``torchrun`` several processes share the work::

    torchrun --nproc-per-node 8 -m partseg.training job.json

Standard output has one JSON object per line, from process 0 alone:

* ``{"event": "progress", "done": 20, "total": 100, "message": "loss 1.2"}``
* ``{"event": "log", "message": "..."}``
* ``{"event": "finished", "metrics": {...}}``
* ``{"event": "stopped", "message": "..."}``
* ``{"event": "failed", "message": "...", "where": "..." or null, "fix": "..." or null}``

Exit codes: 0 finished; 1 a fault of partseg, its traceback is on standard error; 2 a person can mend it; 3
stopped by SIGTERM or SIGINT, and the same command goes on from the checkpoint that is left. ``torchrun``
itself ends with 1 whenever one of its processes does not end with 0: there, the events tell more.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from partseg.errors import PartsegError
from partseg.progress import Silent
from partseg.training.distributed import joined
from partseg.training.job import read_job
from partseg.training.runner import run_job
from partseg.training.stopping import TrainingStopped, stop_requests

INTERVAL = 0.1
"""Seconds between two progress events."""


class EventLines:
    """Progress and results as JSON lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """A progress event, unless there was one just now."""
        now = time.monotonic()
        if done == total or now - self.last >= INTERVAL:
            self.last = now
            self.send("progress", done=done, total=total, message=message)

    def log(self, message: str) -> None:
        """A log event."""
        self.send("log", message=message)

    def send(self, event: str, **values: Any) -> None:
        """Any event. Where nobody listens any more, the training still goes on, or to its checkpoint."""
        try:
            self.stream.write(f"{json.dumps({'event': event, **values})}\n")
            self.stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def main(arguments: list[str]) -> int:
    """Run the job named on the command line and return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m partseg.training job.json\n")
        return 2
    events = EventLines(sys.stdout)
    with stop_requests() as stop:
        first = False
        try:
            with joined() as processes:
                first = not processes.rank
                job = processes.together(lambda: read_job(Path(arguments[0])))
                report = events if first else Silent()
                metrics = run_job(job, report, processes=processes, stop=stop)
        except TrainingStopped as stopped:
            if first:
                events.send("stopped", message=str(stopped))
            return 3
        except PartsegError as error:
            if first:
                where = None if error.where is None else str(error.where)
                events.send("failed", message=error.what, where=where, fix=error.fix)
                sys.stderr.write(f"{error}\n")
            return 2
        if first:
            events.send("finished", metrics=metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
