"""An S3 server in this process, and addresses of empty stores on it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import pytest

BUCKET = "team"


@cache
def _start() -> str:
    """Start the server, which ends with this process; returns its address."""
    reason = "moto and flask are not installed: there is no S3 to test with"
    server = pytest.importorskip("moto.server", reason=reason)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    return f"http://{host}:{port}"


@contextmanager
def s3_server() -> Iterator[None]:
    """The environment points every S3 client at a server of this process, children's too."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: stores on S3 cannot be opened")
    import fsspec

    environment = {
        "AWS_ENDPOINT_URL": _start(),
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with patch.dict(os.environ, environment):
        fsspec.filesystem("s3").makedirs(BUCKET, exist_ok=True)
        yield


def new_url() -> str:
    """An empty store."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
