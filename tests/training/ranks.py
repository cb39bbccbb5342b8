"""Trainings in forked processes: torch is loaded already, so each costs milliseconds instead of seconds."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

from partseg.training.distributed import Processes, joined

FORK = multiprocessing.get_context("fork")


def fork(function: Callable[[], Any], environment: dict[str, str] | None = None) -> Child:
    return Child(function, environment or {})


class Child:
    """A forked process that runs a function; its result, or what it raised, comes back."""

    def __init__(self, function: Callable[[], Any], environment: dict[str, str]) -> None:
        self.receiver, self.sender = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=self._run, args=(function, environment))
        self.process.start()
        self.sender.close()

    def _run(self, function: Callable[[], Any], environment: dict[str, str]) -> None:
        os.environ.update(environment)
        try:
            answer = ("result", function())
        except Exception as error:
            traceback.print_exc()
            answer = ("error", error)
        self.sender.send_bytes(pickle.dumps(answer))

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
    return [fork(run, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)]


def run_ranks(world: int, function: Callable[[Processes], Any]) -> list[Any]:
    return [child.result() for child in start_ranks(world, function)]
