"""Work that is shared by further processes of this machine, which never outlive the one that wants it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from partseg.errors import PartsegError

T = TypeVar("T")
R = TypeVar("R")

POLL = 0.5
"""Seconds between two looks at how far the processes are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a function works.

    Attributes:
        number: of the process among those that share the work, from 0.
        add: tells the one who waits for the work that so many more pieces of an item are done.
    """

    number: int
    add: Callable[[int], None]


def in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    *,
    start: Callable[[Place], None] | None = None,
    heard: Callable[[int], None] | None = None,
) -> Generator[R, None, None]:
    """The results of a function in the order of the items; at most two items per process are waiting.

    The processes start afresh (spawn): the caller may hold threads and mapped files that a fork would copy in
    an unknown state. They end at once when the generator is closed, when anything is raised here, and when
    this process is gone, however it ended.

    Args:
        function: what to do with an item; can be pickled.
        items: they can be pickled, too.
        workers: processes; with 0, or where there is one item only, this process does the work.
        start: called first in every process that works.
        heard: called here, every now and then, with all that the processes have added.

    Raises:
        PartsegError: a process died; and what ``function`` raises.
    """
    if workers <= 0 or len(items) < 2:
        yield from _here(function, items, start, heard)
        return
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    workers = min(workers, len(items))
    # A place for each to write to: a process that dies with a lock would have everybody wait.
    number, done = context.Value("i", 0), context.RawArray("q", workers)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(lifeline, number, done, start)
    )

    def look() -> None:
        if heard is not None:
            heard(sum(done))

    try:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield _result(waiting.popleft(), look)
        while waiting:
            yield _result(waiting.popleft(), look)
    except BaseException as error:
        held.close()  # the processes end
        if not isinstance(error, BrokenProcessPool):
            raise
        raise PartsegError(
            "a worker process was killed, or did not start",
            fix="lower the number of processes, or free memory; what is done so far is kept. A script must "
            "call this under if __name__ == '__main__'",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        lifeline.close()


def _here(
    function: Callable[[T], R],
    items: Sequence[T],
    start: Callable[[Place], None] | None,
    heard: Callable[[int], None] | None,
) -> Generator[R, None, None]:
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        if heard is not None:
            heard(done)

    if start is not None:
        start(Place(number=0, add=add))
    yield from map(function, items)


def _result(future: Future[R], look: Callable[[], None]) -> R:
    while not wait([future], POLL).done:
        look()
    look()
    return future.result()


def _begin(lifeline: Connection, number: Any, done: Any, start: Callable[[Place], None] | None) -> None:
    """In a new process: leave Ctrl-C to the parent, end when the lifeline does, take a number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        lifeline.poll(None)  # nothing is ever sent: this is the other end's last breath
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if start is None:
        return
    with number.get_lock():
        mine = number.value
        number.value += 1

    def add(count: int) -> None:
        done[mine] += count

    start(Place(number=mine, add=add))
