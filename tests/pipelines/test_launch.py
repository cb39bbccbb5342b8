from __future__ import annotations

import sys
from pathlib import Path

import pytest

from partseg.errors import RecipeError, TrainingError
from pipelines.launch import Launch, gpus, training_command
from pipelines.workspace import Workspace

JOB = Path("job.json")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("PROCESSES", "NODES", "RENDEZVOUS"):
        monkeypatch.delenv(f"PARTSEG_{name}", raising=False)


def test_what_is_given_comes_before_the_environment_and_that_before_the_defaults(monkeypatch, tmp_path):
    assert Workspace.open(home=tmp_path).launch == Launch(processes=1, nodes=1, rendezvous=None)
    monkeypatch.setenv("PARTSEG_PROCESSES", "auto")
    monkeypatch.setenv("PARTSEG_NODES", "2")
    monkeypatch.setenv("PARTSEG_RENDEZVOUS", "a:29500")
    assert Workspace.open(home=tmp_path).launch == Launch(processes="auto", nodes=2, rendezvous="a:29500")
    given = Workspace.open(home=tmp_path, processes=4, nodes=3, rendezvous="b:1").launch
    assert given == Launch(processes=4, nodes=3, rendezvous="b:1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": -1}, "-1 processes cannot train"),
        ({"nodes": 0}, "0 nodes cannot train"),
        ({"nodes": 2}, "give --rendezvous HOST:PORT"),
        ({"nodes": 2, "rendezvous": "node0"}, "'node0' is not understood; write HOST:PORT"),
        ({"nodes": 2, "rendezvous": "node0:1", "processes": 0}, "several nodes need processes of their own"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given, message):
    with pytest.raises(RecipeError, match=message):
        Launch(**given)


def test_a_variable_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("PARTSEG_PROCESSES", "two")
    with pytest.raises(
        RecipeError, match="PARTSEG_PROCESSES: 'two' is not understood; give a number or auto"
    ):
        Launch.choose()


@pytest.mark.parametrize(
    ("devices", "batches", "nodes", "expected"),
    [("", 8, 1, 1), ("0,1,2,3", 8, 1, 4), ("0,1,2", 8, 1, 2), ("0,1,2,3", 1, 1, 1), ("0,1,2,3", 4, 2, 2)],
)
def test_one_process_per_gpu_as_far_as_the_batches_go(monkeypatch, devices, batches, nodes, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    launch = Launch(processes="auto", nodes=nodes, rendezvous="a:1")
    assert launch.here(batches) == expected


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(TrainingError, match=r"8 batches .* by 3 processes .* whose product divides 8"):
        Launch(processes=3).here(8)
    with pytest.raises(TrainingError, match="on 3 machine"):
        Launch(processes="auto", nodes=3, rendezvous="a:1").here(8)


@pytest.mark.parametrize(
    ("devices", "count"), [("", 0), ("-1", 0), ("0", 1), ("2, 3", 2), ("0,-1,1", 1), ("GPU-8f,MIG-a2", 2)]
)
def test_gpus_are_counted_as_the_driver_reads_the_list(monkeypatch, devices, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert gpus() == count


def test_commands():
    assert training_command(JOB, 1, Launch()) == [sys.executable, "-m", "partseg.training", "job.json"]
    several = training_command(JOB, 2, Launch(processes=2))
    assert several[1:3] == ["-m", "torch.distributed.run"]
    assert "--standalone" in several
    launch = Launch(processes=1, nodes=2, rendezvous="node0:29500")
    text = " ".join(training_command(JOB, 1, launch, node=1))
    assert "--nnodes 2 --node-rank 1 --master-addr node0 --master-port 29500" in text
    assert text.endswith("-m partseg.training job.json")
