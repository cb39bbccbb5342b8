"""Run the flow in this process, for a person at a terminal."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from flows.reproduce import HERE, Here, reproduce
from flows.runners import Runner
from partseg.errors import PartsegError
from pipelines.plan import Plan, Selection
from pipelines.recipe import CONFIGS
from pipelines.run import stopped_by_sigterm
from pipelines.watch import Watcher
from pipelines.workspace import Workspace


def run_here(
    plan: Plan,
    workspace: Workspace,
    selection: Selection,
    overrides: dict[str, Any],
    watcher: Watcher,
    runner: Runner = "local",
    runner_address: str | None = None,
) -> Path | None:
    """Run a plan as a flow; returns the report's page.

    Without a server (``PREFECT_API_URL``) Prefect starts a temporary one of its own. Who converts raw data is
    described in :mod:`flows.runners`.

    Raises:
        PartsegError: a stage failed for a reason a person can mend.
    """
    recipe = plan.recipe
    named = recipe.path.parent == CONFIGS / "recipes"
    here = Here(watcher=watcher)
    token = HERE.set(here)
    try:
        with stopped_by_sigterm():
            _start_server()
            state: Any = reproduce(
                recipe=recipe.path.stem if named else str(recipe.path),
                profile=recipe.profile,
                store=workspace.store.url,
                raw={name: str(folder) for name, folder in workspace.raw.items()} or None,
                only=list(selection.only) or None,
                from_stage=list(selection.from_) or None,
                until=list(selection.until) or None,
                force=list(selection.force) or None,
                downstream=selection.downstream,
                overrides=overrides or None,
                workers=workspace.workers,
                processes=workspace.launch.processes,
                nodes=workspace.launch.nodes,
                rendezvous=workspace.launch.rendezvous,
                runner=runner,
                runner_address=runner_address,
                home=str(workspace.home),
                return_state=True,
            )
    except httpx.TransportError as error:
        raise _gone() from error
    except RuntimeError as error:
        if "ephemeral Prefect API server" in str(error):
            what, fix = "Prefect's embedded server did not start", "add --no-prefect to run without it"
        elif "Failed to reach API" in str(error):
            what, fix = (
                "the Prefect server does not answer",
                "start it, unset PREFECT_API_URL, or add --no-prefect",
            )
        else:
            raise
        raise PartsegError(what, fix=fix) from error
    finally:
        HERE.reset(token)
    if isinstance(here.error, httpx.TransportError):
        raise _gone() from here.error
    if here.error is not None:
        raise here.error
    if not state.is_completed():
        raise PartsegError(f"the flow run ended as {state.name}: {state.message}")
    return here.page


def _gone() -> PartsegError:
    return PartsegError(
        "the Prefect server does not answer any more",
        fix="start it again, or add --no-prefect: the same command goes on where this one ended",
    )


def _start_server() -> None:
    """Start Prefect's temporary server, where no other is set, so that Ctrl-C does not end it.

    A terminal sends Ctrl-C to every process of the run. Without its server Prefect needs more than a minute
    to notice, and then fails. A program keeps the signals blocked that the thread that starts it has blocked.
    """
    if PREFECT_API_URL.value() is not None:
        return

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        with get_client(sync_client=True):
            pass

    with ThreadPoolExecutor(1) as thread:
        thread.submit(copy_context().run, start).result()
