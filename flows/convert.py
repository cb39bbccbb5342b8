"""One dataset, on its own: raw files, downloaded where they are not here yet, to the common layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from flows.runners import Runner, shard_mapper
from partseg.acquire.get import check_complete, get
from partseg.datasets import convert as driver
from partseg.datasets.facts import data_manifest
from partseg.errors import PartsegError
from pipelines.raw import fetched_folder
from pipelines.workspace import default_home


@flow(name="convert", flow_run_name="{source}", persist_result=False)
def convert(
    source: str,
    out: str,
    raw: str | None = None,
    mirror: str | None = None,
    options: dict[str, Any] | None = None,
    runner: Runner = "local",
    runner_address: str | None = None,
    workers: int = 0,
) -> Any:
    """Convert raw data into a new dataset; stopped half-way, the same parameters go on where it was.

    Args:
        source: name of a raw format.
        out: folder of the dataset; must not exist yet.
        raw: folder with the raw files; by default where `partseg data get` puts them, and then what is
            missing is downloaded.
        mirror: a team's copy of the raw files, tried before the publisher's.
        options: settings of the source.
        runner: who works on it: processes of this machine, a Dask or a Ray cluster.
        runner_address: scheduler of a cluster that is up already; by default one is started here.
        workers: processes on this machine.
    """
    try:
        root = Path(raw) if raw else fetched_folder(default_home(), source)
        if not raw:
            download(source, root, mirror)
        counts = driver.convert(
            source,
            root,
            Path(out),
            options=options,
            workers=workers,
            mapper=shard_mapper(runner, address=runner_address, workers=workers),
        )
    except PartsegError as error:  # one line, not three tracebacks
        return Failed(message=str(error), data=error)
    return Completed(message=", ".join(f"{count} {name}" for name, count in counts.items()), data=counts)


@task(name="get", task_run_name="get {source}", cache_policy=NO_CACHE, persist_result=False)
def download(source: str, root: Path, mirror: str | None) -> None:
    """Bring the raw files of a source to ``root``; those that are there are checked and left alone."""
    check_complete(get(data_manifest(source), root, mirror=mirror, report=_Log()), root)


class _Log:
    """Writes a line to the run's log for every tenth of the way."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._tenth = 0

    def update(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` bytes have arrived."""
        tenth = 10 * done // total if total else 0
        if tenth != self._tenth:
            self._tenth = tenth
            self._log.info("%s: %d %% of %.1f MB", message, 10 * tenth, total / 1e6)

    def log(self, message: str) -> None:
        """Pass a line on."""
        self._log.info(message)
