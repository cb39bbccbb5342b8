"""One dataset, on its own: raw files to the common layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.runners import Runner, shard_mapper
from partseg.datasets import convert as driver
from partseg.errors import PartsegError


@flow(name="convert", flow_run_name="{source}", persist_result=False)
def convert(
    source: str,
    raw: str,
    out: str,
    options: dict[str, Any] | None = None,
    runner: Runner = "local",
    runner_address: str | None = None,
    workers: int = 0,
) -> Any:
    """Convert raw data into a new dataset; stopped half-way, the same parameters go on where it was.

    Args:
        source: name of a raw format.
        raw: folder with the raw files.
        out: folder of the dataset; must not exist yet.
        options: settings of the source.
        runner: who works on it: processes of this machine, a Dask or a Ray cluster.
        runner_address: scheduler of a cluster that is up already; by default one is started here.
        workers: processes on this machine.
    """
    try:
        counts = driver.convert(
            source,
            Path(raw),
            Path(out),
            options=options,
            workers=workers,
            mapper=shard_mapper(runner, address=runner_address, workers=workers),
        )
    except PartsegError as error:  # one line, not three tracebacks
        return Failed(message=str(error), data=error)
    return Completed(message=", ".join(f"{count} {name}" for name, count in counts.items()), data=counts)
