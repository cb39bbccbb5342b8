"""How a training is asked to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from partseg.errors import TrainingError


class TrainingStopped(TrainingError):
    """Somebody asked the training to stop. It left a checkpoint and goes on from there when run again."""


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that is set when the process gets SIGTERM or SIGINT (Ctrl-C).

    Signals only reach the main thread; elsewhere the event is never set. A signal that was ignored still is.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
