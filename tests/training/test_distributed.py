from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.training.config import Runtime
from partseg.training.distributed import PIECE, Processes, RunningStatistics, _pieces, average_gradients
from partseg.training.iteration import Learner
from partseg.training.loop import train
from partseg.training.stopping import TrainingStopped
from partseg.vocabulary import EmbeddingTable
from tests.training.ranks import run_ranks, start_ranks
from tests.training.trainings import StopAt, config, files, sources


def test_one_process_talks_to_nobody() -> None:
    alone = Processes()
    assert alone.any(True, False) == (True, False)
    assert alone.gather(3) == [3]
    assert alone.share("x") == "x"
    assert list(alone.share_of(3)) == [0, 1, 2]


def test_what_two_processes_tell_each_other() -> None:
    def talk(processes: Processes) -> tuple[object, ...]:
        rank = processes.rank
        tensors = [torch.full((2, 3), rank + 1.0), torch.full((4,), rank + 10.0)]
        # A channels-last tensor: what is sent must come back to the same places.
        strided = torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last) * (
            rank + 1
        )
        processes.sum_([*tensors, strided])
        weights = [torch.full((3,), float(rank)), torch.tensor(rank + 5)]
        processes.broadcast_(weights)

        def fail() -> None:
            if rank == 1:
                raise TrainingError("only here", where="there", fix="so")

        with pytest.raises(TrainingError, match="only here"):
            processes.together(fail)
        return (
            processes.any(rank == 1, False),
            processes.gather(rank),
            processes.share(rank),
            list(processes.share_of(5)),
            [float(tensor.sum()) for tensor in tensors],
            torch.equal(strided, torch.arange(24.0).view(1, 2, 3, 4) * 3),
            [weight.sum().item() for weight in weights],
        )

    first, second = run_ranks(2, talk)
    assert first == ((True, False), [0, 1], 0, [0, 2, 4], [18.0, 84.0], True, [0.0, 5])
    assert second == (*first[:3], [1, 3], *first[4:])


def test_gradients_travel_in_pieces_of_limited_size() -> None:
    tensors = [torch.empty(n, device="meta") for n in (PIECE - 1, 1, 1, 3 * PIECE, 5)]
    assert [[t.numel() for t in piece] for piece in _pieces(tensors, PIECE)] == [
        [PIECE - 1, 1],
        [1],
        [3 * PIECE],
        [5],
    ]


def test_a_parameter_nobody_used_keeps_no_gradient() -> None:
    def average(processes: Processes) -> list[object]:
        parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
        parameters[0].grad = torch.full((2,), 1.0)
        if processes.rank:
            parameters[1].grad = torch.full((2,), 5.0)
        average_gradients(parameters, processes)
        return [None if p.grad is None else p.grad.tolist() for p in parameters]

    assert run_ranks(2, average) == [[[2.0, 2.0], [5.0, 5.0], None]] * 2


def test_running_statistics_do_not_depend_on_who_took_which_batch() -> None:
    batches = torch.randn(4, 8, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    def learn(processes: Processes) -> dict[str, torch.Tensor]:
        norm = nn.BatchNorm2d(3)
        statistics = RunningStatistics(norm)
        for _ in range(2):
            statistics.begin()
            for number in processes.share_of(4):
                statistics.rewind()
                norm(batches[number])
                statistics.collect()
            statistics.end(4, processes)
        return {name: tensor.clone() for name, tensor in norm.state_dict().items()}

    alone = learn(Processes())
    plain = nn.BatchNorm2d(3)
    plain(batches[0])
    assert alone["num_batches_tracked"] == 2
    for shared in run_ranks(2, learn):
        torch.testing.assert_close(shared, alone)
    one = nn.BatchNorm2d(3)
    statistics = RunningStatistics(one)
    statistics.begin()
    one(batches[0])
    statistics.collect()
    one(batches[0])  # as a backward pass that computes activations again does
    statistics.end(1, Processes())
    assert torch.equal(one.running_mean, plain.running_mean)


def test_two_processes_train_as_one_that_accumulates(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
) -> None:
    """With two batches even the last bit: a + b is b + a. With four, sums of other orders, up to rounding."""
    for batches, tolerance in ((2, 0.0), (4, 1e-4)):
        settings = config(6, batches=batches, ema=0.9)
        one, two = tmp_path / f"one-{batches}", tmp_path / f"two-{batches}"
        alone = train(settings, sources(boxes), table, one, tmp_path / f"{one.name}-work")

        def shared(processes: Processes, settings=settings, two=two) -> dict[str, object]:
            work = tmp_path / f"{two.name}-work"
            return dict(train(settings, sources(boxes), table, two, work, processes=processes))

        first, second = run_ranks(2, shared)
        assert first == second
        assert first["iterations"] == alone["iterations"] == 6
        weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
        torch.testing.assert_close(weights[0], weights[1], rtol=tolerance, atol=tolerance)
        lines = [
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (one, two)
        ]
        assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
        for a, b in zip(*lines, strict=True):
            assert a == pytest.approx(b, rel=10 * tolerance)
        if not tolerance:
            assert files(one) == files(two)


def test_a_training_may_go_on_with_another_number_of_processes(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
) -> None:
    settings = config(6, batches=2)
    train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work-a")
    with pytest.raises(TrainingStopped):
        train(settings, sources(boxes), table, tmp_path / "b", tmp_path / "work-b", StopAt(2))

    def shared(processes: Processes, stop: int | None = None) -> None:
        report = StopAt(stop) if processes.rank == 1 and stop else None  # the signal reaches one of them only
        train(
            settings,
            sources(boxes),
            table,
            tmp_path / "b",
            tmp_path / "work-b",
            report,
            processes=processes,
        )

    for child in start_ranks(2, lambda processes: shared(processes, 4)):
        with pytest.raises(TrainingStopped, match="after iteration 4 of 6"):
            child.result()
    assert (tmp_path / "work-b" / "iteration-00000004").exists()
    run_ranks(2, shared)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_processes_that_cannot_share_the_batches_are_told(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
) -> None:
    for child in start_ranks(
        2,
        lambda processes: train(
            config(2, batches=3),
            sources(boxes),
            table,
            tmp_path / "a",
            tmp_path / "work",
            processes=processes,
        ),
    ):
        with pytest.raises(TrainingError, match="3 batches per iteration cannot be shared by 2"):
            child.result()


def test_an_error_in_one_process_reaches_all(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
) -> None:
    """A loss that is not finite in process 1 alone: its images are named, and both end with that error."""
    losses = Learner._losses

    def explode(self, batch, iteration, number):
        found = losses(self, batch, iteration, number)
        if iteration == 1 and number == 1:
            found["loss_cls"] = found["loss_rpn_cls"] * float("nan")
        return found

    work = tmp_path / "work"

    def shared(processes: Processes) -> None:
        setattr(Learner, "_losses", explode)  # noqa: B010
        train(config(3, batches=2), sources(boxes), table, tmp_path / "a", work, processes=processes)

    for child in start_ranks(2, shared):
        with pytest.raises(TrainingError, match="not finite at iteration 1"):
            child.result()
    found = json.loads((work / "not_finite.json").read_text())
    assert (found["iteration"], found["batch"]) == (1, 1)
    assert found["losses"]["loss_cls"] == "nan"
    assert found["image_ids"]
    assert "'train'" in found["split"]
    assert not (tmp_path / "a").exists()


def test_killed_together_they_go_on_and_end_the_same(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
) -> None:
    settings = config(7, batches=2)
    train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work-a")

    class Kill:
        def update(self, done: int, total: int, message: str = "") -> None:
            if done == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        def log(self, message: str) -> None:
            pass

    def shared(processes: Processes, report: Kill | None = None) -> None:
        train(
            settings,
            sources(boxes),
            table,
            tmp_path / "b",
            tmp_path / "work-b",
            report,
            runtime=Runtime(checkpoint_every=3),
            processes=processes,
        )

    killed = start_ranks(2, lambda processes: shared(processes, Kill()))
    assert [child.end() for child in killed] == [-signal.SIGKILL] * 2
    run_ranks(2, shared)
    assert files(tmp_path / "a") == files(tmp_path / "b")
