"""Trainings in processes of their own.

They come from a fork server that has torch loaded, not from the process of the tests: autograd refuses to
work after a fork from a process in which it once had threads.
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from partseg.training.data import WORKER_START
from partseg.training.distributed import Processes, joined

# Loaded once, by the fork server: then a process costs milliseconds instead of seconds.
PRELOAD = ["partseg.training.loading", "partseg.training.runner", "tests.training.trainings"]
WORKER_START.set_forkserver_preload(PRELOAD)


def _run(sender: Connection, function: bytes, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    try:
        answer = ("result", pickle.loads(function)())
    except Exception as error:
        traceback.print_exc()
        answer = ("error", error)
    sender.send_bytes(cloudpickle.dumps(answer))


def start(function: Callable[[], Any], environment: dict[str, str] | None = None) -> Child:
    return Child(function, environment or {})


class Child:
    """A process that runs a function, a closure even; its result, or what it raised, comes back."""

    def __init__(self, function: Callable[[], Any], environment: dict[str, str]) -> None:
        self.receiver, sender = WORKER_START.Pipe(duplex=False)
        arguments = (sender, cloudpickle.dumps(function), environment)
        self.process = WORKER_START.Process(target=_run, args=arguments)
        self.process.start()
        sender.close()

    def end(self) -> int:
        """Wait; the exit code, negative for a signal."""
        self.process.join(timeout=120)
        assert self.process.exitcode is not None, "the process hangs"
        return self.process.exitcode

    def result(self) -> Any:
        kind, value = pickle.loads(self.receiver.recv_bytes())
        self.end()
        if kind == "error":
            raise value
        return value


def start_ranks(world: int, function: Callable[[Processes], Any]) -> list[Child]:
    """``world`` processes, connected by gloo as torchrun would have it."""

    def run() -> Any:
        with joined() as processes:
            return function(processes)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [start(run, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)]


def run_ranks(world: int, function: Callable[[Processes], Any]) -> list[Any]:
    return [child.result() for child in start_ranks(world, function)]
