"""Flow runs that are cancelled or interrupted: said to be so, a checkpoint left, no process left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.kinds import KINDS
from pipelines.manifest import read_runs
from pipelines.orphans import descendants
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.watch import Unwatched
from pipelines.workspace import Workspace
from tests.pipelines import fakes
from tests.pipelines.test_child import gone
from tests.pipelines.test_train import RECIPE

ROOT = Path(__file__).resolve().parents[2]

SERVE = """
import sys
from pathlib import Path
from flows.settings import apply
apply(Path(sys.argv[1]), logging_level="INFO")
from prefect import serve
from prefect.types.entrypoint import EntrypointType
from flows.reproduce import reproduce
serve(reproduce.to_deployment(
    name=sys.argv[2], parameters={"recipe": "w"}, entrypoint_type=EntrypointType.MODULE_PATH
))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with everything but the training, which would take for ever."""
    folder = tmp_path_factory.mktemp("cancel")
    (folder / "w.yaml").write_text(
        f"{RECIPE}\n  base: {{kind: train, checkpoint_every: 1000000, schedule: {{iterations: 1000000}}}}\n"
    )
    workspace = Workspace.open(home=folder / "home")
    run_recipe(
        make_plan(load_recipe(str(folder / "w.yaml")), workspace, Selection(until=("texts",))), workspace
    )
    return folder


def environment(server: str) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_API_URL": server,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def start(home: Path, prefect_server: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a Python program in the folder; it is ended in the end."""
    started = []

    def begin(*command: str) -> subprocess.Popen[bytes]:
        log = (home / "log").open("ab")
        process = subprocess.Popen(
            [sys.executable, *command], cwd=home, env=environment(prefect_server), stdout=log, stderr=log
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def training_processes(home: Path, count: int) -> list[int]:
    """The processes of the training, and its guard, once it makes progress."""
    deadline, work = time.monotonic() + 120, str(home / "home" / "work")
    while time.monotonic() < deadline:
        found = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.exists() and f"{work}/".encode() in read(path)
        ]
        under_way = list((home / "home/work").glob("*/state/throughput.jsonl"))
        if len(found) >= count and under_way:
            return found
        time.sleep(0.2)
    pytest.fail((home / "log").read_text())


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def newest_run() -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]


def cancel(run_id: Any) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Cancelling())


def state_of(run_id: Any, wanted: str, seconds: float = 90) -> str:
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            name = client.read_flow_run(run_id).state.name
            if name == wanted or time.monotonic() > deadline:
                return str(name)
            time.sleep(0.3)


def begin_run(home: Path, deployment: str, processes: int) -> Any:
    """Asks for a run of the training as soon as the deployment is there."""
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    parameters = {
        "recipe": str(home / "w.yaml"),
        "home": str(home / "home"),
        "store": str(home / "home/store"),
        "processes": processes,
    }
    shutil.rmtree(home / "home/work", ignore_errors=True)
    deadline = time.monotonic() + 90
    while True:
        try:
            return run_deployment(f"reproduce/{deployment}", parameters=parameters, timeout=0)
        except ObjectNotFound:
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.5)


def check_cancelling(home: Path, run: Any, processes: int, runner: subprocess.Popen[bytes]) -> None:
    # the guard and the process; or the guard, torchrun and the processes
    training = training_processes(home, count=2 if processes == 1 else 2 + processes)
    cancel(run.id)
    assert state_of(run.id, "Cancelled") == "Cancelled"
    assert gone(training, 70)
    assert list((home / "home/work").glob("*/state/iteration-*"))
    assert runner.poll() is None
    deadline = time.monotonic() + 10
    while descendants(runner.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not descendants(runner.pid)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_served_run_is_cancelled(home: Path, start: Any, processes: int) -> None:
    name = f"cancelled-{processes}"
    serving = start("-c", SERVE, str(home / "home"), name)
    check_cancelling(home, begin_run(home, name, processes), processes, serving)


@pytest.mark.slow
def test_a_workers_run_is_cancelled(home: Path, start: Any) -> None:
    assert start("-m", "flows.deploy", "--pool", "cancelled").wait(timeout=120) == 0
    working = start("-m", "prefect", "worker", "start", "--pool", "cancelled", "--type", "process")
    check_cancelling(home, begin_run(home, "demo", 2), 2, working)


SLOW = """
stages:
  one: {kind: numbers}
  slow: {kind: slow, of: one, steps: 200, seconds: 0.05}
"""


def test_a_run_in_ones_own_process_is_cancelled(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cancel import RunCancelled
    from flows.here import run_here

    for name, module in fakes.KINDS.items():
        monkeypatch.setitem(KINDS, name, module)
    monkeypatch.setattr("flows.cancel.INTERVAL", 0.2)
    (tmp_path / "w.yaml").write_text(SLOW)

    class Canceller(Unwatched):
        done = 0

        def progress(self, stage: str, done: int, total: int, message: str) -> None:
            if stage == "slow" and not self.done:
                cancel(newest_run().id)
            self.done = done

    watcher = Canceller()
    workspace = Workspace.open(home=tmp_path / "home")
    plan = make_plan(load_recipe(tmp_path / "w.yaml"), workspace)
    with pytest.raises(RunCancelled):
        run_here(plan, workspace, Selection(), {}, watcher)
    assert state_of(newest_run().id, "Cancelled") == "Cancelled"
    assert 0 < watcher.done < 200
    assert read_runs(tmp_path / "home")[0]["state"] == "stopped"
    assert list((tmp_path / "home/work").glob("*/state/count"))  # what the next run goes on from


@pytest.mark.slow
def test_ctrl_c_does_not_take_the_temporary_server_away(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(SLOW)
    own = {
        "PARTSEG_HOME": str(tmp_path / "home"),
        "FAKE_TRACE": str(tmp_path / "trace"),
        "PYTHONPATH": str(ROOT),
    }
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.fakes.cli", "run", "w.yaml"],
        cwd=tmp_path,
        env={**outer, **own},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "trace").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = [pid for pid, _ in descendants(process.pid)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=40)
    assert (process.returncode, err.splitlines()[-1][:15]) == (130, "error: stopped;"), err
    assert gone(children)
