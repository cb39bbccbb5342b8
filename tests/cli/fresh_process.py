"""Code in a process of its own, to see what it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(code: str, folder: Path) -> str:
    """What Python code prints in a folder, with a home folder inside it."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PARTSEG_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
