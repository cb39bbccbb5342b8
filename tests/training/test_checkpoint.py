from __future__ import annotations

from pathlib import Path

import pytest
import torch

from partseg.errors import TrainingError
from partseg.models.vlpart import build_model
from partseg.training.checkpoint import Best, Checkpoints, Progressed
from partseg.training.config import ScheduleConfig
from partseg.training.ema import WeightMean
from partseg.training.optimiser import Optimiser
from tests.training.trainings import MODEL

SCHEDULE = ScheduleConfig(iterations=10, learning_rate=0.1, warmup=0)


def checkpoints(folder: Path, *, seed: int = 0, identity: str = "same", keep: int = 2) -> Checkpoints:
    torch.manual_seed(seed)
    model = build_model(MODEL)
    return Checkpoints(
        folder=folder,
        identity=identity,
        keep=keep,
        model=model,
        optimiser=Optimiser(model, SCHEDULE, scaled=True),
        mean=WeightMean(model, 0.9),
    )


def change(of: Checkpoints, iteration: int) -> None:
    """An update of the weights, as if something had been learnt."""
    of.optimiser.clear()
    of.optimiser.backward(sum((p**2).sum() for p in of.optimiser.parameters))
    of.optimiser.update(iteration)
    of.mean.update()


def test_everything_comes_back(tmp_path: Path) -> None:
    first = checkpoints(tmp_path)
    for iteration in range(2):
        change(first, iteration)
    progressed = Progressed(
        iteration=2,
        lines=["a"],
        window={"loss": [1.5, 2]},
        best=Best(iteration=1, value=0.25),
        validation=0.2,
    )
    first.save(progressed)
    second = checkpoints(tmp_path, seed=1)
    assert second.resume() == progressed
    for of in (first, second):
        change(of, 2)
    for a, b in (
        (first.model.state_dict(), second.model.state_dict()),
        (first.mean.means, second.mean.means),
    ):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_without_a_checkpoint_nothing_changes(tmp_path: Path) -> None:
    first = checkpoints(tmp_path)
    before = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    assert first.resume() == Progressed()
    first.save(Progressed(iteration=3))
    for path in (tmp_path / "iteration-00000003").iterdir():
        content = path.read_bytes()
        for damage in (b"", content[: len(content) // 2], b"x" * len(content)):
            path.write_bytes(damage)
            assert first.resume() == Progressed()
        path.unlink()
        assert first.resume() == Progressed()
        path.write_bytes(content)
    assert first.resume().iteration == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in first.model.state_dict().items())


def test_another_training_is_refused(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(Progressed(iteration=1))
    with pytest.raises(TrainingError, match="other settings or data"):
        checkpoints(tmp_path, identity="other").resume()


def test_the_last_few_stay_and_the_best_they_remember(tmp_path: Path) -> None:
    of = checkpoints(tmp_path)
    best = None
    for iteration in range(1, 8):
        if iteration in (2, 3, 5):
            of.save_best(iteration, of.model.state_dict())
            best = Best(iteration=iteration, value=float(iteration))
        (tmp_path / ".iteration-00000000.part").mkdir(exist_ok=True)  # of a process that was killed
        of.save(Progressed(iteration=iteration, best=best))
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == [
            *(["best"] if best else []),
            *(f"iteration-{i:08d}" for i in range(max(1, iteration - 1), iteration + 1)),
        ]
        kept = sorted(int(path.stem[-8:]) for path in (tmp_path / "best").glob("*"))
        assert kept == {2: [2], 3: [2, 3], 4: [3], 5: [3, 5]}.get(iteration, [5] if iteration > 5 else [])
    change(of, 0)
    changed = next(iter(of.model.state_dict().values())).clone()
    of.load_best(Best(iteration=5, value=5.0))
    assert not torch.equal(next(iter(of.model.state_dict().values())), changed)


def test_weights_of_another_model_are_told_from_damage(tmp_path: Path) -> None:
    of = checkpoints(tmp_path)
    of.model.register_buffer("another", torch.zeros(1))
    of.save(Progressed(iteration=1))
    with pytest.raises(TrainingError, match="does not fit the model"):
        checkpoints(tmp_path).resume()
