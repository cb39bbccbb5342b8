"""Conversions whose shards are task runs on a Dask cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from partseg.datasets.convert import convert
from partseg.errors import PartsegError, SourceError
from partseg.synthetic import write_imagenet_folder, write_pascal_part
from tests.faults.test_convert_faults import alive, content

pytest.importorskip("prefect_dask")

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {"n02085620": "dog", "n02123045": "cat"}
SHARD = 16


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two worlds of a hundred images."""
    root = tmp_path_factory.mktemp("raw")
    write_pascal_part(root / "pascal_part", seed=5, train=70, val=30, size=48)
    write_imagenet_folder(root / "imagenet_folder", seed=5, per_class=50, classes=CLASSES, size=32)
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that is up: its workers need seconds to import Prefect."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def flow(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The flow ``convert`` on a cluster of two, in shards small enough to need several task runs."""
    from flows.convert import convert as flow

    monkeypatch.setitem(convert.__kwdefaults__, "shard_records", SHARD)

    def run(source: str, raw: Path, out: Path, **parameters: Any) -> Any:
        options = {"classes": CLASSES} if source == "imagenet_folder" else {}
        parameters = {"runner": "dask", "workers": 2, "options": options, **parameters}
        return flow(source, out=str(out), raw=str(raw), return_state=True, **parameters)

    return run


def task_runs() -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[newest.id])))
        return {run.name: run.state.name for run in runs}


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def test_a_cluster_gives_the_same_bytes(flow: Any, raw: Path, tmp_path: Path) -> None:
    source = "pascal_part"
    state = flow(source, raw / source, tmp_path / "cluster")
    assert state.is_completed()
    assert state.message.startswith("100 source_records, 100 images, 0 dropped")
    deadline = time.monotonic() + 10  # the server learns of them a little later
    while len(task_runs()) < 7 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert task_runs() == {f"shards {number}-{number}": "Completed" for number in range(7)}
    convert(source, raw / source, tmp_path / "alone", shard_records=1000)
    convert(source, raw / source, tmp_path / "workers", shard_records=9, workers=2)
    assert content(tmp_path / "cluster") == content(tmp_path / "alone") == content(tmp_path / "workers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "cluster", "workers"]


@pytest.mark.slow
def test_an_error_arrives_as_it_was_and_another_runner_goes_on(
    flow: Any, cluster: str, raw: Path, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    write_imagenet_folder(root, seed=5, per_class=50, classes=CLASSES, size=32)
    last = root / "n02123045/n02123045_9.JPEG"
    last.write_bytes(b"")
    state = flow("imagenet_folder", root, tmp_path / "out", runner_address=cluster)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert (type(error), error.where, str(error)) == (SourceError, last, state.message)
    finished = sorted((tmp_path / ".out.converting/shards").iterdir())
    assert len(finished) == 6
    before = [path.stat().st_mtime_ns for path in finished]
    again = flow("imagenet_folder", root, tmp_path / "out", runner="local", workers=0)
    assert again.message == state.message
    assert [path.stat().st_mtime_ns for path in finished] == before


def test_a_cluster_that_is_up_already_is_left_alone(
    flow: Any, cluster: str, raw: Path, tmp_path: Path
) -> None:
    from distributed import Client

    for name in ("first", "second"):
        state = flow("imagenet_folder", raw / "imagenet_folder", tmp_path / name, runner_address=cluster)
        assert state.is_completed()
    with Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_scheduler_without_workers_is_not_waited_for(flow: Any, raw: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        address = empty.scheduler_address
        state = flow("imagenet_folder", raw / "imagenet_folder", tmp_path / "out", runner_address=address)
    assert state.message.startswith(f"{address}: the Dask scheduler has no workers")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"runner_address": "tcp://127.0.0.1:9"}, "tcp://127.0.0.1:9: the Dask scheduler does not answer"),
        ({"runner": "local", "runner_address": "x"}, "a runner's address is given, but no runner"),
    ],
)
def test_a_wrong_address_is_explained(
    flow: Any,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("flows.runners.PATIENCE", 1)
    state = flow("imagenet_folder", raw / "imagenet_folder", tmp_path / "out", **parameters)
    assert state.is_failed()
    assert message in state.message
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("prefect_ray") is not None, reason="Ray is installed")
def test_a_runner_that_is_not_installed_says_what_to_install() -> None:
    from flows.runners import shard_mapper

    with pytest.raises(PartsegError, match="ray is not installed; pip install prefect-ray"):
        shard_mapper("ray")


@pytest.mark.parametrize(("shards", "processes"), [(1, 8), (7, 2), (100, 3), (5000, 500)])
def test_pieces_are_few_and_even(shards: int, processes: int) -> None:
    from flows.runners import MOST_PIECES, PIECES_PER_WORKER, split_evenly

    numbers = list(range(shards))
    pieces = split_evenly(numbers, processes)
    assert [number for piece in pieces for number in piece] == numbers
    assert len(pieces) == min(shards, PIECES_PER_WORKER * processes, MOST_PIECES)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


RECIPE = """
stages:
  raw: {kind: acquire, source: pascal_part}
  parts: {kind: convert, raw: raw}
"""


def test_a_recipe_converts_on_the_cluster(
    prefect_server: str, cluster: str, raw: Path, tmp_path: Path
) -> None:
    from flows.reproduce import reproduce
    from partseg.store import Store

    (tmp_path / "w.yaml").write_text(RECIPE)
    digests = []
    for runner, address in (("local", None), ("dask", cluster)):
        home = tmp_path / runner
        state = reproduce(
            recipe=str(tmp_path / "w.yaml"),
            home=str(home),
            raw={"pascal_part": str(raw / "pascal_part")},
            runner=runner,
            runner_address=address,
            return_state=True,
        )
        assert state.is_completed(), state.message
        store = Store(home / "store", cache=home / "cache")
        digests.append({stage: store.lookup(key).tree for (_, stage), key in store.refs().items()})
    assert digests[0] == digests[1]
    assert set(task_runs()) >= {"raw", "parts", "shards 0-0"}


CHILD = f"""
from flows.settings import apply
from pathlib import Path
apply(Path("home"))
from flows.convert import convert
if __name__ == "__main__":
    options = {{"classes": {CLASSES!r}}}
    convert("imagenet_folder", out="out", raw="raw", options=options, runner="dask", workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_flow_takes_its_cluster_along(prefect_server: str, tmp_path: Path, number: int) -> None:
    write_imagenet_folder(tmp_path / "raw", seed=0, per_class=1, classes=CLASSES, size=32)
    for name in CLASSES:  # many links to one large file: slow to read, quick to write
        first = tmp_path / f"raw/{name}/{name}_1.JPEG"
        with first.open("ab") as file:
            file.write(bytes(5_000_000))
        for other in range(2, 400):
            (tmp_path / f"raw/{name}/{name}_{other}.JPEG").hardlink_to(first)
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", CHILD], cwd=tmp_path, env=environment)
    shards = tmp_path / ".out.converting/shards"
    deadline = time.monotonic() + 60
    while not list(shards.glob("[0-9]*.arrow")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    process.wait(timeout=30)
    assert not (tmp_path / "out").exists()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline, "the cluster outlives its flow"
        time.sleep(0.05)
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*.arrow")}
    assert before
