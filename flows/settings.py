"""Prefect's settings as partseg wants them: quiet, patient, and nothing sent anywhere.

Applied before Prefect is imported, and only where the user has not said otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def apply(home: Path, *, logging_level: str = "CRITICAL", api_url: str | None = None) -> None:
    """Set the environment of this process and its children.

    Args:
        home: partseg's home; Prefect keeps its own files in ``<home>/prefect``.
        logging_level: CRITICAL in a terminal, where partseg itself says what is wrong; INFO where logs shall
            reach Prefect's pages.
        api_url: the server to talk to; None leaves it to the user's settings or the embedded server.
    """
    settings = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_LEVEL": logging_level,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # Nothing is reported to anybody.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # The embedded server needs 13 s on an idle machine; the default of 20 s is too close.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        # A Dask cluster says every step of its life otherwise.
        "DASK_LOGGING__DISTRIBUTED": "error",
        # Slots of a concurrency limit outlive a restart of the server, instead of leaking.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
    }
    if api_url is not None:
        # The pages call port 4200 whatever the server's own port, unless told.
        settings |= {"PREFECT_API_URL": api_url, "PREFECT_SERVER_UI_API_URL": api_url}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # The embedded server's database is opened before Prefect makes the folder.
    Path(os.environ["PREFECT_HOME"]).expanduser().mkdir(parents=True, exist_ok=True)
