"""Where and with what an artifact was made: recorded beside its content, never inside."""

from __future__ import annotations

import getpass
import math
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import partseg

PACKAGES = ("numpy", "torch", "torchvision", "timm", "pyarrow", "pycocotools", "pillow")


@cache
def provenance() -> dict[str, Any]:
    """Who and where, code version, git commit (with ``+`` if files differ from it) and library versions."""
    return {
        "user": _user(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "partseg": partseg.__version__,
        "git": _git_commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float | int | str | None]:
    """Metrics as JSON can hold them: numpy scalars unpacked, nan and infinity as None."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in plain.items()
    }


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = Path(partseg.__file__).parents[1]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
