"""SIGKILL at random moments: rerun, a recipe ends in the artifacts of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.settings import LEASES
from tests.pipelines.test_train import BASE, RECIPE

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PARTSEG_TEST_SEED", time.time_ns() % 10**6))
ROUNDS = int(os.environ.get("PARTSEG_TEST_KILLS", "6"))
VICTIMS = ("flow", "training", "server")
RUN = "from partseg.cli import main; main()"
PATIENCE = 300


class Server:
    """A Prefect server of its own, which can be killed and comes back with what it knew."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.folder, self.process = folder, None
        (folder / "prefect").mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, unless it runs."""
        from flows.serve import answers

        if self.process is not None and self.process.poll() is None:
            return
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not answers(self.url):
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL for it and whatever it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("prefect")
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()


def begin(folder: Path, server: Server) -> subprocess.Popen[bytes]:
    """A run of the recipe with a home and a store of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.yaml").write_text(f"{RECIPE}{BASE}  more: {{kind: train, init: base}}\n")
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, "run", "w.yaml", "--processes", "1"],
            cwd=folder,
            env={**server.environment, "PARTSEG_HOME": str(folder / "home"), "PARTSEG_STORE": ""},
            stdout=log,
            stderr=log,
        )


def digests(folder: Path) -> dict[str, str]:
    """Stage -> content digest, as the store has it."""
    store = folder / "home/store"
    refs = {path.stem: json.loads(path.read_bytes())["key"] for path in store.glob("refs/w/*.json")}
    return {
        stage: json.loads((store / f"actions/{key}.json").read_bytes())["tree"] for stage, key in refs.items()
    }


def training(folder: Path) -> list[int]:
    """The processes that train for the run in a folder, without their guard."""
    work, found = f"{folder / 'home/work'}/".encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes()
            if work in command and b"pipelines.guard" not in command:
                found.append(int(path.parent.name))
    return found


@dataclass
class Undisturbed:
    """What comes out of a run that nobody kills, how long it takes, and when it trains."""

    digests: dict[str, str]
    seconds: float
    trains: list[float]


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder, start, trains = tmp_path_factory.mktemp("undisturbed"), time.monotonic(), []
    run = begin(folder, server)
    while run.poll() is None:
        assert time.monotonic() - start < PATIENCE
        if training(folder):
            trains.append(time.monotonic() - start)
        time.sleep(0.1)
    assert run.returncode == 0, (folder / "log").read_text()
    return Undisturbed(digests(folder), time.monotonic() - start, trains)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_whatever_is_killed_a_rerun_ends_in_the_same_artifacts(
    server: Server, undisturbed: Undisturbed, tmp_path: Path, number: int
) -> None:
    expected, seconds = undisturbed.digests, undisturbed.seconds
    assert set(expected) == {"raw", "parts", "texts", "base", "more"}
    assert undisturbed.trains
    choice, victim = random.Random(f"{SEED}-{number}"), VICTIMS[number % len(VICTIMS)]
    moments = undisturbed.trains if victim == "training" else [choice.uniform(0.1, 0.95) * seconds]
    moment = choice.choice(moments)
    sys.stderr.write(f"PARTSEG_TEST_SEED={SEED}: {victim} after {moment:.2f} of {seconds:.2f} s\n")
    server.start()
    run, start = begin(tmp_path, server), time.monotonic()
    while time.monotonic() - start < moment and run.poll() is None:
        time.sleep(0.02)
    if victim == "flow":
        run.kill()
    elif victim == "server":
        server.kill()
    else:
        while run.poll() is None and not training(tmp_path):
            time.sleep(0.02)
        for pid in training(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    try:
        code = run.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        run.kill()
        pytest.fail(f"the run hangs\n{(tmp_path / 'log').read_text()}")
    sys.stderr.write(f"the run ended with {code}\n")
    assert code in {"flow": (-signal.SIGKILL, 0), "training": (2, 0), "server": (2, 0)}[victim]
    server.start()
    rerun = begin(tmp_path, server)
    assert rerun.wait(timeout=PATIENCE) == 0, (tmp_path / "log").read_text()
    assert digests(tmp_path) == expected
    assert not list((tmp_path / "home/work").glob("*"))
