"""Several flow runs at once: one build of what they share, and one training at a time on a queue for that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
stages:
  one: {kind: numbers}
  slow: {kind: slow, of: one, steps: STEPS, seconds: 0.1}
  sum: {kind: add, of: [one, slow]}
"""
WITH_FAKES = """
from pipelines.kinds import KINDS
from tests.pipelines import fakes
KINDS.update(fakes.KINDS)
"""


@pytest.fixture
def start(prefect_server: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a Python program that knows the small kinds of stage; it is ended in the end."""
    started = []
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITH_FAKES)
    (tmp_path / "log").touch()

    def begin(*command: str, home: str = "home") -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PREFECT_API_URL": prefect_server,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PARTSEG_HOME": str(tmp_path / home),
            "PARTSEG_STORE": str(tmp_path / "store"),
            "FAKE_TRACE": str(tmp_path / "trace"),
            "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}",
        }
        log = (tmp_path / "log").open("ab")
        process = subprocess.Popen(
            [sys.executable, *command], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def outcomes(home: Path) -> dict[str, str]:
    (manifest,) = (home / "runs").glob("*/run.json")
    return {stage["stage"]: stage["state"] for stage in json.loads(manifest.read_bytes())["stages"]}


def test_two_runs_at_once_build_every_stage_once(start: Any, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(SMALL.replace("STEPS", "40"))
    runs = [
        start("-m", "tests.pipelines.fakes.cli", "run", "w.yaml", home=home) for home in ("mine", "theirs")
    ]
    for run in runs:
        assert run.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    steps = (tmp_path / "trace").read_text().splitlines()
    assert steps == [f"step {n}" for n in range(40)]
    found = [outcomes(tmp_path / home) for home in ("mine", "theirs")]
    for stage in ("one", "slow", "sum"):
        assert sorted(outcome[stage] for outcome in found) == ["built", "cached"]


@pytest.mark.slow
def test_a_gpu_queue_lets_one_training_through_and_does_not_hold_up_the_rest(
    start: Any, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment

    names = ["vlpart_r50_voc", "vlpart_swinb_voc", "prepare"]
    assert start("-m", "flows.deploy", *names, "--pool", "shared").wait(timeout=120) == 0
    for number in range(3):
        (tmp_path / f"{number}.yaml").write_text(SMALL.replace("STEPS", f"6{number}"))
    start("-m", "prefect", "worker", "start", "--pool", "shared", "--type", "process")
    runs = [
        run_deployment(
            f"reproduce/{name}", parameters={"recipe": str(tmp_path / f"{number}.yaml")}, timeout=0
        )
        for number, name in enumerate(names)
    ]
    deadline = time.monotonic() + 240
    with get_client(sync_client=True) as client:
        while True:
            found = [client.read_flow_run(run.id) for run in runs]
            if all(run.state is not None and run.state.is_final() for run in found):
                break
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
    assert all(run.state.is_completed() for run in found), [run.state for run in found]
    first, second = sorted(found[:2], key=lambda run: run.start_time)
    assert second.start_time > first.end_time
    assert found[2].start_time < second.start_time
    assert [run.name for run in found] == ["0", "1", "2"]
