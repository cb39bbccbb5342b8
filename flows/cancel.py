"""Cancelling a flow run that no worker looks after.

A worker, or ``python -m flows.serve``, stops the process of a run that is cancelled. A run in somebody's own
process would stay "Cancelling" for ever and train on, so it asks now and then.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import get_client

INTERVAL = 10.0
"""Seconds between two questions: each is a call to the server."""
STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"
"""The variable by which a worker tells a process which run it is."""


class RunCancelled(KeyboardInterrupt):
    """Somebody cancelled the run; like Ctrl-C, it leaves checkpoints."""


class CancelCheck:
    """Looks whether a run was cancelled; to be called often.

    Args:
        run_id: of the flow run; None never looks.
    """

    def __init__(self, run_id: UUID | str | None) -> None:
        alone = run_id is not None and STARTED_BY_WORKER not in os.environ
        self._id = UUID(str(run_id)) if alone else None
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Ask the server, if that is due.

        Raises:
            RunCancelled: somebody did.
        """
        if self._id is None or time.monotonic() - self._last < INTERVAL:
            return
        self._last = time.monotonic()
        state = None
        with suppress(Exception), get_client(sync_client=True) as client:  # it is asked again
            state = client.read_flow_run(self._id).state
        if state is not None and state.is_cancelling():
            raise RunCancelled("cancelled")
