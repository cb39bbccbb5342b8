"""Stands in for ``python -m partseg.training``: says what it is told to, and has children of its own.

``python -m tests.pipelines.fakes.training WORK LINES...`` prints the lines; ``exit N``, ``kill N``, ``err
TEXT`` and ``wait`` do that instead. ``wait`` starts two stubborn processes, one of them in another session,
writes all process ids to ``WORK/pids`` and then counts until SIGTERM, which leaves ``WORK/saved``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def say(**event) -> None:
    try:
        sys.stdout.write(f"{json.dumps(event)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def wait(work: Path) -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    children = [
        subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=apart) for apart in (False, True)
    ]
    (work / "pids").write_text(" ".join(str(pid) for pid in (os.getpid(), *(c.pid for c in children))))
    step = 0
    while not asked:
        step += 1
        say(event="progress", done=min(step, 999), total=1000, message="loss 1.0")
        time.sleep(0.05)
    time.sleep(float(os.environ.get("FAKE_SAVING", "0.3")))
    (work / "saved").write_text(str(step))
    say(event="log", message="left a checkpoint")
    say(event="stopped", message="stopped")
    sys.exit(3)


def main(work: Path, lines: list[str]) -> None:
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "exit":
            sys.exit(int(rest))
        elif word == "kill":
            os.kill(os.getpid(), int(rest))
        elif word == "err":
            sys.stderr.write(f"{rest}\n")
        elif word == "wait":
            wait(work)
        else:
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
