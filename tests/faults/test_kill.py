"""Runs that are killed at a bad moment, and what the next one makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from partseg.store import Store

RECIPE = """
stages:
  one: {kind: numbers, value: 1}
  slow: {kind: slow, of: one, steps: 12, seconds: 0.1}
  last: {kind: add, of: [slow]}
"""
ROOT = Path(__file__).resolve().parents[2]


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "trace"
        (folder / "w.yaml").write_text(RECIPE)

    def start(self, home="home", *arguments):
        environment = {
            **os.environ,
            "PARTSEG_HOME": str(self.folder / home),
            "PARTSEG_STORE": str(self.folder / (home if home == "undisturbed" else "store")),
            "FAKE_TRACE": str(self.trace),
            "PYTHONPATH": str(ROOT),
        }
        environment.pop("PREFECT_API_URL", None)
        command = [
            sys.executable,
            "-m",
            "tests.pipelines.fakes.cli",
            "run",
            "w.yaml",
            "--no-prefect",
            *arguments,
        ]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out

    def wait_for_step(self, step):
        deadline = time.monotonic() + 30
        while not (self.trace.exists() and f"step {step}\n" in self.trace.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def steps(self):
        return self.trace.read_text().count("step")

    def store(self, name="store"):
        return Store(self.folder / name, cache=self.folder / "cache")

    def digests(self, name="store"):
        store = self.store(name)
        return {stage: store.lookup(key).tree for (_, stage), key in store.refs().items()}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_and_ends_the_same(home, number):
    process = home.start()
    home.wait_for_step(5)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert err.startswith("error: stopped")
    assert set(home.digests()) == {"one"}
    start = time.monotonic()
    home.finish()
    assert time.monotonic() - start < 10  # nobody waits for the dead
    assert home.steps() <= 13  # the step that was cut short is done again, no other
    home.finish("undisturbed")
    assert home.digests() == home.digests("undisturbed")
    states = [
        json.loads(path.read_bytes())["state"] for path in sorted(home.folder.glob("home/runs/*/run.json"))
    ]
    assert sorted(states) == ["done", "running" if number == signal.SIGKILL else "stopped"]


def test_of_two_runs_at_once_one_builds(home):
    processes = [home.start("home-a"), home.start("home-b")]
    outs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert home.steps() == 12
    assert sum("slow  built" in out for out in outs) == 1
    assert sum("slow  cached" in out for out in outs) == 1


def test_a_waiting_run_takes_over_from_a_killed_one(home):
    first = home.start("home-a")
    home.wait_for_step(3)
    second = home.start("home-b")
    time.sleep(0.5)
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "slow  built" in out


def test_a_crash_before_the_commit_leaves_no_artifact(tmp_path):
    code = f"""
import os
from pathlib import Path
from partseg.store import Store
store = Store({str(tmp_path / "store")!r}, cache=Path({str(tmp_path / "cache")!r}))
out = Path({str(tmp_path / "out")!r}); out.mkdir(); (out / "a").write_text("x")
store.commit = lambda action: os.kill(os.getpid(), 9)
store.publish("k", out, parts={{}}, facts={{}})
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    store = Store(tmp_path / "store", cache=tmp_path / "cache")
    assert len(list(store.files.walk("blobs"))) == 1
    assert store.lookup("k") is None
    assert list(store.actions()) == []


def test_children_of_a_killed_run_are_taken_along(tmp_path):
    code = """
import subprocess, sys, time
from pipelines.orphans import start_watcher
start_watcher()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    time.sleep(1.5)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)
