"""Who works on the shards of a conversion: processes of this machine, a Dask cluster or a Ray cluster.

On a cluster every worker is given a few pieces of consecutive shards, each piece as one task run of the flow:
a task run costs a tenth of a second, and a shard often not much more. The shards' files are the same whoever
makes them, so what was stopped on one runner goes on with another.

Workers need partseg, the raw files and the working folder under the same paths as here, and the same Prefect
server.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed

from partseg.datasets.shards import Mapper, Shard
from partseg.errors import PartsegError

Runner = Literal["local", "dask", "ray"]
T = TypeVar("T")

PIECES_PER_WORKER = 4
"""So that nobody idles for long at the end; four times 0.15 s is little beside what a worker does."""
MOST_PIECES = 200
"""Task runs of one conversion: each leaves 20 kB in Prefect's database."""
PATIENCE = 30
"""Seconds a scheduler may take to answer."""

Open = Callable[[str | None, int], Any]
"""Opens a task runner: scheduler's address and processes -> context with the runner and its workers."""


def shard_mapper(runner: Runner, *, address: str | None = None, workers: int = 0) -> Mapper | None:
    """The mapper of a flow run's conversions; None leaves them to processes of this machine.

    A cluster that is started here lives as long as one conversion. Called in the flow itself, so that the
    pieces are task runs of the flow wherever the mapper is used.

    Args:
        runner: "local", "dask" or "ray".
        address: of a scheduler that is up already; None starts a cluster on this machine.
        workers: processes of a cluster on this machine; 0 is one per core.

    Raises:
        PartsegError: the runner is not installed, or "local" is given an address.
    """
    if runner == "local":
        if address is not None:
            raise PartsegError("a runner's address is given, but no runner", fix="set runner to dask or ray")
        return None
    package = f"prefect_{runner}"
    if find_spec(package) is None:
        raise PartsegError(
            f"the runner {runner} is not installed", fix=f"pip install {package.replace('_', '-')}"
        )
    open_runner: Open = _dask if runner == "dask" else _ray
    context = copy_context()

    def apply(function: Callable[[Shard], Path], shards: Sequence[Shard]) -> Generator[Path, None, None]:
        if not shards:
            return
        with open_runner(address, workers or os.cpu_count() or 1) as (tasks, processes):
            pieces = split_evenly(shards, processes)
            futures = [context.run(_submit, tasks, function, piece) for piece in pieces]
            for future in futures:
                yield from future.result()

    return apply


def split_evenly(shards: Sequence[T], processes: int) -> list[Sequence[T]]:
    """Pieces of consecutive shards, which differ in length by one at most."""
    number = min(len(shards), PIECES_PER_WORKER * processes, MOST_PIECES)
    bounds = [len(shards) * index // number for index in range(number + 1)]
    return [shards[start:end] for start, end in pairwise(bounds)]


def _submit(tasks: Any, function: Callable[[Shard], Path], piece: Sequence[Shard]) -> Any:
    named = _make_piece.with_options(task_run_name=f"shards {piece[0].number}-{piece[-1].number}")
    # A worker finds the embedded server, too, instead of starting one of its own.
    with temporary_settings({PREFECT_API_URL: str(get_client(sync_client=True).api_url)}):
        # as one callable: Prefect would look for futures among hundreds of thousands of keys
        return tasks.submit(named, {"work": partial(_apply_all, function, piece)})


@task(name="shards", cache_policy=NO_CACHE, persist_result=False)
def _make_piece(work: Callable[[], list[Path]]) -> State[list[Path]]:
    try:
        return Completed(data=work())
    except PartsegError as error:  # one line, not three tracebacks
        return Failed(message=str(error), data=error)


def _apply_all(function: Callable[[Shard], Path], piece: Sequence[Shard]) -> list[Path]:
    return [function(shard) for shard in piece]


@contextmanager
def _dask(address: str | None, workers: int) -> Iterator[tuple[Any, int]]:
    from distributed import KilledWorker
    from prefect_dask.task_runners import DaskTaskRunner

    if address is not None:
        runner = DaskTaskRunner(address=address, client_kwargs={"timeout": PATIENCE})
    else:
        cluster = {
            "n_workers": workers,
            "threads_per_worker": 1,
            "memory_limit": 0,  # mapped raw files count as memory, and workers are killed for it
            "dashboard_address": "127.0.0.1:0",  # not the usual port, which others may want
            "silence_logs": logging.ERROR,
        }
        runner = DaskTaskRunner(cluster_kwargs=cluster)
    try:
        with runner:
            yield runner, _dask_threads(runner, address)
    except KilledWorker as error:
        raise PartsegError(
            "workers of the Dask cluster were killed again and again",
            fix="give them more memory; what is done so far is kept",
        ) from error


def _dask_threads(runner: Any, address: str | None) -> int:
    try:
        threads: int = sum(runner.client.nthreads().values())
    except OSError as error:
        raise PartsegError(
            "the Dask scheduler does not answer", where=address, fix="check address"
        ) from error
    if not threads:
        raise PartsegError("the Dask scheduler has no workers", where=address, fix=f"dask worker {address}")
    return threads


@contextmanager
def _ray(address: str | None, workers: int) -> Iterator[tuple[Any, int]]:
    import ray
    from prefect_ray import RayTaskRunner

    with RayTaskRunner(address=address, init_kwargs=None if address else {"num_cpus": workers}) as runner:
        yield runner, int(ray.cluster_resources().get("CPU", 1))
