"""Trainings in processes of their own: what they say, how they end, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from partseg.errors import TrainingError
from pipelines.child import ChildFailed, run_child

ROOT = Path(__file__).resolve().parents[2]


class Heard:
    """A report that remembers."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, int, str]] = []
        self.lines: list[str] = []

    def update(self, done, total, message=""):
        self.updates.append((done, total, message))

    def log(self, message):
        self.lines.append(message)


def command(work: Path, *lines: str) -> list[str]:
    return [sys.executable, "-m", "tests.pipelines.fakes.training", str(work), *lines]


def event(name: str, **values) -> str:
    return json.dumps({"event": name, **values})


FINISHED = event("finished", metrics={"loss": 0.5})


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_of(work: Path) -> list[int]:
    """The training's processes, once it runs."""
    deadline = time.monotonic() + 20
    while not (work / "pids").exists() or len((work / "pids").read_text().split()) < 3:
        assert time.monotonic() < deadline, "the training did not start"
        time.sleep(0.02)
    return [int(pid) for pid in (work / "pids").read_text().split()]


def gone(pids: list[int], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_events_become_progress_and_metrics_and_the_rest_goes_to_the_log(tmp_path):
    heard = Heard()
    lines = [
        event("log", message="going on from iteration 3"),
        "a library says something",
        event("progress", done=4, total=5, message="loss 1.2"),
        "err a warning",
        FINISHED,
    ]
    assert run_child(command(tmp_path, *lines), tmp_path, heard) == {"loss": 0.5}
    assert heard.updates == [(4, 5, "loss 1.2")]
    assert heard.lines == ["going on from iteration 3"]
    assert sorted((tmp_path / "train.log").read_text().split("\n")) == [
        "",
        "a library says something",
        "a warning",
    ]


def test_a_fault_somebody_can_mend_arrives_as_it_was(tmp_path):
    failed = event("failed", message="the loss is not finite", where="x.json", fix="lower the rate")
    with pytest.raises(TrainingError) as caught:
        run_child(command(tmp_path, failed, "exit 2"), tmp_path, Heard())
    assert str(caught.value) == "x.json: the loss is not finite; lower the rate"
    assert (caught.value.where, caught.value.fix) == ("x.json", "lower the rate")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["kill 9"], "the training was killed, .*no memory left; .*recompute: true"),
        (["kill 7"], "SIGBUS, .*shared memory"),
        (["kill 11"], "died of SIGSEGV; see the end of this log"),
        (["exit 3"], "stopped the training; .*run it again"),
        (
            ["err torch.OutOfMemoryError: CUDA out of memory.", "exit 1"],
            "the GPU has not enough memory; .*batch",
        ),
        # What torchrun says of a rank.
        (["err failed (exitcode: -9) local_rank: 1 (pid: 7)", "exit 1"], "the training was killed"),
    ],
)
def test_other_ends_are_told_in_one_line(tmp_path, lines, message):
    (tmp_path / "train.log").write_text("OutOfMemoryError and (exitcode: -11) of an earlier run\n")
    with pytest.raises(TrainingError, match=message):
        run_child(command(tmp_path, *lines), tmp_path, Heard())


def test_a_bug_shows_the_end_of_the_log(tmp_path):
    lines = [f"err line {number}" for number in range(40)]
    with pytest.raises(ChildFailed, match=r"(?s)exit code 1; the end of .*train\.log:\nline 10\n.*line 39$"):
        run_child(command(tmp_path, *lines, "exit 1"), tmp_path, Heard())
    with pytest.raises(ChildFailed, match="exit code 0"):  # it said nothing about a result
        run_child(command(tmp_path), tmp_path, Heard())


def test_an_error_here_stops_the_training_and_all_it_started(tmp_path):
    class Impatient(Heard):
        def update(self, done, total, message=""):
            if (tmp_path / "pids").exists() and done > 3:
                raise KeyboardInterrupt

    heard = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run_child(command(tmp_path, "wait"), tmp_path, heard)
    assert (tmp_path / "saved").exists()
    assert not any(alive(pid) for pid in pids_of(tmp_path))
    assert heard.lines == ["left a checkpoint"]


def test_who_asks_twice_does_not_wait_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SAVING", "60")

    class Impatient(Heard):
        def update(self, done, total, message=""):
            if done > 3:
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
                raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_child(command(tmp_path, "wait"), tmp_path, Impatient())
    assert time.monotonic() - start < 20
    assert not (tmp_path / "saved").exists()
    assert not any(alive(pid) for pid in pids_of(tmp_path))


PARENT = """
import sys
from pathlib import Path
from partseg.progress import Silent
from pipelines.child import run_child
from pipelines.run import stopped_by_sigterm
work, command = Path(sys.argv[1]), [sys.executable, "-m", "tests.pipelines.fakes.training", *sys.argv[1:]]
with stopped_by_sigterm():
    run_child(command, work, Silent())
"""


def start_parent(work: Path, *lines: str) -> subprocess.Popen[bytes]:
    code = [sys.executable, "-c", PARENT, str(work), *lines]
    return subprocess.Popen(code, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        pytest.param(signal.SIGINT, True, id="ctrl-c"),
        pytest.param(signal.SIGHUP, True, id="closed terminal"),
        pytest.param(signal.SIGTERM, False, id="terminated"),
        pytest.param(signal.SIGTERM, True, id="cancelled by prefect"),
        pytest.param(signal.SIGKILL, False, id="killed"),
        pytest.param(signal.SIGKILL, True, id="group killed"),
    ],
)
def test_whatever_ends_the_run_the_training_saves_its_state_and_ends(tmp_path, number, group):
    parent = start_parent(tmp_path, "wait")
    pids = pids_of(tmp_path)
    if group:
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
    parent.wait(timeout=20)
    assert gone(pids)
    assert (tmp_path / "saved").exists()


def test_a_killed_guard_does_not_leave_the_training_behind(tmp_path):
    parent = start_parent(tmp_path, "wait")
    training = pids_of(tmp_path)[0]
    guard = int(Path(f"/proc/{training}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert gone([training])
    assert (tmp_path / "saved").exists()
    parent.wait(timeout=20)
    for pid in pids_of(tmp_path)[1:]:  # nobody was left to end the stubborn ones
        os.kill(pid, signal.SIGKILL)


def test_a_training_waits_for_the_one_of_a_killed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SAVING", "1")
    parent = start_parent(tmp_path, "wait")
    pids = pids_of(tmp_path)
    parent.kill()
    parent.wait()
    heard = Heard()
    run_child(command(tmp_path, FINISHED), tmp_path, heard)
    assert heard.lines == ["waiting for the training of an earlier run to end"]
    assert (tmp_path / "saved").exists()
    assert not any(alive(pid) for pid in pids)


def test_a_folder_of_the_user_is_not_mistaken_for_the_code(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_child(command(tmp_path, FINISHED), tmp_path, Heard()) == {"loss": 0.5}
