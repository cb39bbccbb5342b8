from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from partseg.errors import TrainingError, WeightsError
from partseg.layout import Dataset
from partseg.models.config import ModelConfig
from partseg.models.files import load_model, read_card
from partseg.training.config import AugmentConfig, Runtime, ScheduleConfig, TrainConfig, source
from partseg.training.inference import detect_split
from partseg.training.loop import TrainingStopped, train
from partseg.vocabulary import EmbeddingTable, build_table

MODEL = ModelConfig.model_validate(
    {
        "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": 0},
        "pyramid_channels": 16,
        "text_dim": 32,
        "rpn": {
            "anchor_sizes": [12, 24, 48, 96, 128],
            "samples_per_image": 32,
            "candidates_per_level_train": 50,
            "proposals_train": 40,
        },
        "roi": {
            "samples_per_image": 16,
            "box_pool": 4,
            "box_channels": 32,
            "mask_pool": 4,
            "mask_convs": 1,
            "mask_channels": 16,
        },
        "inference": {"short_side": 64, "long_side": 96},
    }
)


@pytest.fixture(scope="module")
def table(boxes: Dataset) -> EmbeddingTable:
    return build_table([c.name for c in boxes.categories], encoder="offline:32")


def config(iterations: int = 8, **schedule: Any) -> TrainConfig:
    return TrainConfig(
        model=MODEL,
        schedule=ScheduleConfig(
            iterations=iterations, learning_rate=1e-3, warmup=3, gradient_clip=5.0, **schedule
        ),
        augment=AugmentConfig(short_sides=(56, 64), long_side=96),
        log_every=3,
    )


def sources(boxes: Dataset) -> list[Any]:
    return [
        source(boxes, "train", batch_size=2, ratio=2, federated=True),
        source(boxes, "train", batch_size=1, annotation="image"),
        source(boxes, "train", batch_size=2, annotation="parsed_part", names=frozenset({"box:top"})),
    ]


class StopAt:
    """Asks the process to end while an iteration is reported."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def update(self, done: int, total: int, message: str = "") -> None:
        if done == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, message: str) -> None:
        pass


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_training_ends_with_the_same_bytes(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    straight = train(config(), sources(boxes), table, tmp_path / "a", tmp_path / "work-a")
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(TrainingStopped, match="after iteration 4 of 8"):
        train(config(), sources(boxes), table, tmp_path / "b", tmp_path / "work-b", StopAt(4))
    assert not (tmp_path / "b").exists()
    torch.rand(3)  # whatever happens to the generators in between does not matter
    resumed = train(config(), sources(boxes), table, tmp_path / "b", tmp_path / "work-b")
    assert straight == resumed
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert sorted(files(tmp_path / "a")) == ["metrics.jsonl", "model.json", "model.safetensors"]


def test_checkpoints_are_few_and_a_damaged_one_is_passed_over(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    every = Runtime(checkpoint_every=2, keep=2)
    with pytest.raises(TrainingStopped):
        train(config(), sources(boxes), table, tmp_path / "a", work, StopAt(6), runtime=every)
    assert [path.name for path in sorted(work.iterdir())] == ["iteration-00000004", "iteration-00000006"]
    weights = work / "iteration-00000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    train(config(), sources(boxes), table, tmp_path / "a", work, runtime=every)
    train(config(), sources(boxes), table, tmp_path / "b", tmp_path / "other")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_training_in_the_same_folder_is_refused(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    with pytest.raises(TrainingStopped):
        train(config(), sources(boxes), table, tmp_path / "a", tmp_path / "work", StopAt(1))
    other = config(weight_decay=0.5)
    with pytest.raises(TrainingError, match="other settings or data"):
        train(other, sources(boxes), table, tmp_path / "a", tmp_path / "work")


def test_reader_processes_change_nothing(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    train(config(3), sources(boxes), table, tmp_path / "a", tmp_path / "wa")
    train(config(3), sources(boxes), table, tmp_path / "b", tmp_path / "wb", runtime=Runtime(workers=2))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_what_a_training_leaves(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    metrics = train(config(), sources(boxes), table, tmp_path / "out", tmp_path / "work")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [3, 6, 8]
    assert metrics == {"iterations": 8, "loss": lines[-1]["loss"]}
    assert lines[0]["lr"] == pytest.approx(1e-3 * (0.001 / 3 + 2 / 3))
    card = read_card(tmp_path / "out")
    assert card.vocabulary is not None
    assert card.vocabulary.names == ("box", "box:top", "thing")
    model = load_model(tmp_path / "out").train()
    found = list(detect_split(model, boxes.split("train"), table.vectors, batch_size=3))
    assert [row for row, _ in found] == list(range(8))
    assert model.training
    record = boxes.split("train")[7]
    assert (found[7][1].height, found[7][1].width) == (record.height, record.width)


def test_starting_from_a_trained_model(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    train(config(2), sources(boxes), table, tmp_path / "first", tmp_path / "w1")
    still = config(1, warmup_factor=0.0)
    train(still, sources(boxes), table, tmp_path / "second", tmp_path / "w2", init=tmp_path / "first")
    first = load_file(tmp_path / "first" / "model.safetensors")
    second = load_file(tmp_path / "second" / "model.safetensors")
    assert all(torch.equal(first[n], second[n]) for n in first if n.endswith(("weight", "bias")))
    with pytest.raises(WeightsError, match="cannot be read"):
        train(still, sources(boxes), table, tmp_path / "x", tmp_path / "w3", init=tmp_path / "nowhere")


def test_a_loss_that_explodes_names_the_images(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    wild = TrainConfig(
        model=MODEL,
        schedule=ScheduleConfig(iterations=8, learning_rate=1e20, warmup=0),
        augment=config().augment,
    )
    with pytest.raises(TrainingError, match="not finite"):
        train(wild, [source(boxes, "train")], table, tmp_path / "out", tmp_path / "work")
    found = json.loads((tmp_path / "work" / "not_finite.json").read_text())
    assert found["image_ids"]
    assert not (tmp_path / "out").exists()


def test_embeddings_must_fit(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    short = build_table(table.names, encoder="offline:16")
    with pytest.raises(TrainingError, match=r"16 .* 32"):
        train(config(), sources(boxes), short, tmp_path / "out", tmp_path / "work")
    few = build_table(["box"], encoder="offline:32")
    with pytest.raises(WeightsError, match="box:top"):
        train(config(), sources(boxes), few, tmp_path / "out", tmp_path / "work")


def test_learning_rate() -> None:
    schedule = ScheduleConfig(iterations=100, learning_rate=1.0, warmup=10, warmup_factor=0.1, steps=(50, 80))
    rates = [schedule.rate(i) for i in (0, 5, 10, 49, 50, 80)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 0.1, 0.01])


@pytest.mark.parametrize("amp", ["bf16"])
def test_sixteen_bits(boxes: Dataset, table: EmbeddingTable, tmp_path: Path, amp: str) -> None:
    half = config(2).model_copy(update={"amp": amp})
    assert train(half, sources(boxes), table, tmp_path / "out", tmp_path / "work")["iterations"] == 2
