"""The demo's graph is killed in the middle of its longer stages, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

COMMAND = [
    *(sys.executable, "-c", "from partseg.cli import main; main()"),
    *("run", "demo", "--profile", "smoke", "--no-prefect"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    home = tmp_path_factory.mktemp("undisturbed")
    run(home, processes=0)
    return artifacts(home)


# Each is a line of the run's output, or a file under its home; the kill comes as soon as it is there.
MOMENTS = ("parts .*running", "base .*running", "parsed .*running", "with_parsed .*running")
CHECKPOINT = "work/*/state/**/*.safetensors"


@pytest.mark.slow  # test_kill.py and test_training_kill.py kill smaller runs in the ordinary suite
def test_a_run_killed_while_training_goes_on_from_its_checkpoint_and_ends_the_same(undisturbed, tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 120
    while not checkpoint_written(tmp_path):
        assert time.monotonic() < deadline, "no checkpoint was written in time"
        assert process.poll() is None, "the run ended before it wrote a checkpoint"
        time.sleep(0.005)
    kill(process)
    assert "texts" in artifacts(tmp_path)
    run(tmp_path)
    assert artifacts(tmp_path) == undisturbed


def checkpoint_written(home: Path) -> bool:
    with suppress(FileNotFoundError):  # a stage's folder went while it was looked into
        return any(home.glob(CHECKPOINT))
    return False


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_the_same(undisturbed, tmp_path):
    for moment in MOMENTS:
        kill_when(moment, tmp_path)
    run(tmp_path)
    assert artifacts(tmp_path) == undisturbed


def start(home: Path, processes: int = 1) -> subprocess.Popen[str]:
    environment = {**os.environ, "PARTSEG_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    environment["PARTSEG_PROCESSES"] = str(processes)
    environment.pop("PARTSEG_STORE", None)
    return subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(home: Path, processes: int = 1) -> None:
    process = start(home, processes)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def kill_when(moment: str, home: Path) -> None:
    process = start(home)
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(moment, line):
            break
    else:
        pytest.fail(f"the run ended before it printed {moment!r}")
    kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def artifacts(home: Path) -> dict[str, object]:
    """Stage -> content digest and metrics, as the store has them."""
    found = {}
    for path in (home / "store" / "actions").glob("*.json"):
        action = json.loads(path.read_bytes())
        facts = action["facts"]
        found[facts["stage"]] = (action["tree"], facts["metrics"])
    return found
