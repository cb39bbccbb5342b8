"""``python -m flows.serve``: a local Prefect server, if none answers, which serves recipes and sources."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from partseg.errors import PartsegError
from pipelines.orphans import start_watcher
from pipelines.workspace import Workspace

PATIENCE = 180.0
"""Seconds the server may take to answer: 13 on an idle machine with a new database, 30 on a busy one."""


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=3) as reply:
            return bool(reply.read().strip() == b"true")
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def server(api_url: str, port: int, home: Path) -> Iterator[bool]:
    """A server at ``api_url`` while the block runs; yields whether it had to be started."""
    if answers(api_url):
        yield False
        return
    log = home / "prefect" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        command = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        _wait(process, api_url, log)
        yield True
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], api_url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not answers(api_url):
        if process.poll() is not None:
            raise PartsegError("the Prefect server did not start", where=log, fix="another --port may help")
        if time.monotonic() > deadline:
            raise PartsegError(f"the Prefect server does not answer after {PATIENCE:.0f} s", where=log)
        time.sleep(0.3)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # on SIGTERM its own child outlives it
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()


def main(
    port: Annotated[int, typer.Option(help="Port of the local server.")] = 4200,
    store: Annotated[str | None, typer.Option(help="Folder or URL of the store.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
) -> None:
    """Serve every recipe and source until Ctrl-C."""
    from flows.settings import apply

    api_url = os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{port}/api"
    workspace = Workspace.open(store=store, workers=os.cpu_count() or 1)
    apply(workspace.home, logging_level="INFO", api_url=api_url)
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "2")
    start_watcher()
    try:
        with server(api_url, port, workspace.home) as started:
            _serve(workspace, api_url, limit, started)
    except PartsegError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _serve(workspace: Workspace, api_url: str, limit: int, started: bool) -> None:
    from prefect import serve

    from flows.deployments import Settings, deployments

    made = list(deployments(Settings(workspace=workspace)))
    typer.echo(f"{'started' if started else 'found'} a Prefect server: {api_url.removesuffix('/api')}")
    typer.echo("in another terminal:")
    typer.echo(f"  export PREFECT_API_URL={api_url}")
    for deployment in made:
        needs = " -p raw=DIR -p out=DIR" if deployment.flow_name == "convert" else ""
        typer.echo(f"  prefect deployment run {deployment.flow_name}/{deployment.name}{needs} --watch")
    typer.echo("Ctrl-C stops")
    serve(*made, limit=limit, print_starting_message=False)


if __name__ == "__main__":
    typer.run(main)
