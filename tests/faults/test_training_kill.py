"""Trainings that are killed at a bad moment, and end as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.training import checkpoint
from partseg.training.config import Runtime
from partseg.training.loop import train
from partseg.vocabulary import EmbeddingTable, build_table
from tests.training.conftest import write_dataset
from tests.training.ranks import start
from tests.training.trainings import config, files, sources


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt:
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def update(self, done: int, total: int, message: str = "") -> None:
        if done == self.iteration:
            die()

    def log(self, message: str) -> None:
        pass


class Home:
    def __init__(self, boxes: Dataset, table: EmbeddingTable, folder: Path) -> None:
        self.boxes, self.table, self.folder, self.steps = boxes, table, folder, 16

    def train(self, name: str, report: KillAt | None = None, *, every: int = 5) -> dict[str, bytes]:
        train(
            config(self.steps, ema=0.9),
            sources(self.boxes),
            self.table,
            self.folder / name,
            self.folder / f"{name}-work",
            report,
            runtime=Runtime(checkpoint_every=every, keep=2),
        )
        return files(self.folder / name)

    def killed(self, work: Callable[[], Any]) -> None:
        assert start(work).end() == -signal.SIGKILL

    def checkpoints(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.folder / f"{name}-work").glob("iteration-*"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, EmbeddingTable]:
    boxes = write_dataset(tmp_path_factory.mktemp("boxes"))
    return boxes, build_table([c.name for c in boxes.categories], encoder="offline:32")


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return Home(*world, tmp_path_factory.mktemp("undisturbed")).train("straight")


@pytest.fixture
def home(world, tmp_path: Path) -> Home:
    return Home(*world, tmp_path)


def test_killed_after_seventeen_steps_of_forty_the_weights_end_the_same(home: Home) -> None:
    home.steps = 40
    undisturbed = home.train("straight")
    home.killed(lambda: home.train("a", KillAt(17)))
    assert home.checkpoints("a") == ["iteration-00000010", "iteration-00000015"]
    assert not (home.folder / "a").exists()
    assert home.train("a") == undisturbed


# The kill comes with this call, while the checkpoint of iteration 15 is written.
MOMENTS = {
    "half of the weights are written": ("save_file", 1),
    "half of the mean's weights are written": ("save_file", 2),
    "half of the optimiser's state is written": ("torch.save", 1),
    "not all is on the disk": ("sync", 3),
    "it is whole but has no name yet": ("Path.replace", 1),
    "the old one is half removed": ("shutil.rmtree", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_a_checkpoint_is_written_the_one_before_is_as_good(
    home: Home, undisturbed, moment: str
) -> None:
    home.killed(lambda: home.train("a", KillAt(12)))
    name, number = MOMENTS[moment]
    owner: Any = checkpoint
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    name = name.rpartition(".")[2]
    original, calls = getattr(owner, name), []

    def killing(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) < number:
            return original(*arguments, **options)
        if name in ("save_file", "save"):
            original(*arguments, **options)
            path = arguments[1]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if name == "rmtree":
            next(arguments[0].iterdir()).unlink()
        die()

    def disturbed() -> None:
        setattr(owner, name, killing)
        home.train("a")

    home.killed(disturbed)
    last = "iteration-00000015" if name == "rmtree" else "iteration-00000010"
    assert home.checkpoints("a")[-1] == last
    assert home.train("a") == undisturbed


@pytest.mark.slow
def test_killed_again_and_again_the_weights_end_the_same(home: Home, undisturbed) -> None:
    for iteration in range(1, home.steps):
        home.killed(lambda iteration=iteration: home.train("a", KillAt(iteration), every=1))
    assert home.train("a") == undisturbed


def test_a_disk_that_is_full_loses_no_checkpoint(
    home: Home, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.killed(lambda: home.train("a", KillAt(12)))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.torch, "save", full)
        with pytest.raises(TrainingError, match="No space"):
            home.train("a")
    assert home.checkpoints("a")[-1] == "iteration-00000010"
    assert home.train("a") == undisturbed
