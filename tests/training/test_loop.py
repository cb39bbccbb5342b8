from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from partseg.errors import PartsegError, TrainingError, WeightsError
from partseg.layout import Dataset
from partseg.models.files import load_model, read_card
from partseg.models.vlpart import VLPart, build_model
from partseg.training.config import Runtime, ScheduleConfig, TrainConfig, source
from partseg.training.distributed import Processes
from partseg.training.inference import detect_split
from partseg.training.loop import train
from partseg.training.stopping import TrainingStopped
from partseg.vocabulary import EmbeddingTable, build_table
from tests.training.trainings import MODEL, StopAt, config, files, sources


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
    kept = sorted(path.name for path in work.iterdir() if path.is_dir() and path.name != "tensorboard")
    assert kept == ["iteration-00000004", "iteration-00000006"]
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


def test_starting_from_a_pretrained_backbone(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    torch.manual_seed(5)
    backbone = build_model(MODEL).backbone.bottom_up
    save_file(
        {n: t.contiguous() for n, t in backbone.network.state_dict().items()}, tmp_path / "b.safetensors"
    )
    still = config(1, warmup_factor=0.0)
    out, work = tmp_path / "out", tmp_path / "work"
    train(still, sources(boxes), table, out, work, backbone_weights=tmp_path / "b.safetensors")
    found = load_model(out).backbone.bottom_up
    for name, weight in backbone.named_parameters():
        assert torch.equal(found.get_parameter(name), weight)


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


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_sixteen_bits_begin_like_thirty_two(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, amp: str
) -> None:
    losses = {}
    for kind in ("none", amp):
        settings = config(5).model_copy(update={"amp": kind, "log_every": 1})
        out = tmp_path / kind
        train(settings, sources(boxes), table, out, tmp_path / f"work-{kind}")
        losses[kind] = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    # Later ones differ: float16's first updates are left out, until its loss scale has been found.
    assert losses[amp][0] == pytest.approx(losses["none"][0], rel=0.02)
    assert losses[amp] != losses["none"]
    assert losses[amp][-1] < losses[amp][0]


def test_float16_gradients_that_overflow_skip_an_update(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    """The loss scale starts so high that the first gradients are infinite: it is halved, training goes on."""
    settings = config(3).model_copy(update={"amp": "fp16"})
    with pytest.raises(TrainingStopped):
        train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work", StopAt(1))
    path = tmp_path / "work" / "iteration-00000001" / "optimiser.pt"
    kept = torch.load(path, weights_only=True)
    kept["scaler"]["scale"] = 2.0**100
    torch.save(kept, path)
    before = load_file(path.with_name("model.safetensors"))
    with pytest.raises(TrainingStopped):
        train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work", StopAt(2))
    folder = tmp_path / "work" / "iteration-00000002"
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("roi_heads"))
    assert torch.load(folder / "optimiser.pt", weights_only=True)["scaler"]["scale"] == 2.0**99


def test_every_batch_has_random_choices_of_its_own(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, losses = [], VLPart.losses

    def listening(model: VLPart, *arguments: object, **options: object) -> object:
        seeds.append(torch.initial_seed())
        return losses(model, *arguments, **options)

    monkeypatch.setattr(VLPart, "losses", listening)
    train(config(3, batches=2), sources(boxes), table, tmp_path / "a", tmp_path / "work")
    assert len(set(seeds)) == 6
    train(config(6).model_copy(update={"seed": 1}), sources(boxes), table, tmp_path / "b", tmp_path / "other")
    assert len(set(seeds)) == 12


def test_the_running_mean_of_the_weights_is_the_result(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    """Worked by hand from the weights of every iteration, which checkpoints keep."""
    settings, every = config(4, ema=0.75), Runtime(checkpoint_every=1, keep=9)
    first = train(config(1, warmup_factor=0.0), sources(boxes), table, tmp_path / "x", tmp_path / "wx")
    assert first["iterations"] == 1
    with pytest.raises(TrainingStopped):
        train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work", StopAt(2), runtime=every)
    train(settings, sources(boxes), table, tmp_path / "a", tmp_path / "work", runtime=every)
    train(config(4), sources(boxes), table, tmp_path / "plain", tmp_path / "work-plain")
    weights = [load_file(tmp_path / "work" / f"iteration-{i:08d}" / "model.safetensors") for i in (1, 2, 3)]
    weights.append(load_file(tmp_path / "plain" / "model.safetensors"))
    result = load_file(tmp_path / "a" / "model.safetensors")
    name = next(n for n in result if n.startswith("roi_heads") and n.endswith("weight"))
    mean = load_file(tmp_path / "x" / "model.safetensors")[name]  # a rate of 0: the first weights
    for one in weights:
        mean = 0.75 * mean + 0.25 * one[name]
    torch.testing.assert_close(result[name], mean)
    assert not torch.equal(result[name], weights[-1][name])
    train(settings, sources(boxes), table, tmp_path / "b", tmp_path / "straight")
    assert files(tmp_path / "a") == files(tmp_path / "b")


class Scores:
    """A validation with known results."""

    name, every, identity = "validation/fake", 2, "fake"

    def __init__(self, values: list[float]) -> None:
        self.values, self.weights = list(values), list[dict[str, torch.Tensor]]()

    def __call__(self, model: VLPart, processes: Processes) -> float:
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return self.values.pop(0)


def test_the_best_weights_are_the_result(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    settings = config(7, ema=0.5).model_copy(update={"select": "best"})
    scores = Scores([0.1, 0.3, 0.2, 0.3])
    work = tmp_path / "work"
    found = train(settings, sources(boxes), table, tmp_path / "a", work, validation=scores)
    assert found["validation/fake"] == 0.3
    assert (found["best"], found["best_iteration"]) == (0.3, 4)
    result = load_file(tmp_path / "a" / "model.safetensors")
    assert all(torch.equal(result[name], tensor) for name, tensor in scores.weights[1].items())
    assert not all(torch.equal(result[name], tensor) for name, tensor in scores.weights[3].items())
    assert read_card(tmp_path / "a").iterations == 4
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    measured = [(line["iteration"], line["validation/fake"]) for line in lines if "validation/fake" in line]
    assert measured == [(2, 0.1), (4, 0.3), (6, 0.2), (7, 0.3)]
    # Stopped behind the best one, the training still has it, even where an older checkpoint is gone on from.
    for iteration in (5, 6):
        with pytest.raises(TrainingStopped):
            train(
                *(settings, sources(boxes), table, tmp_path / "b", tmp_path / "again", StopAt(iteration)),
                validation=Scores([0.1, 0.3, 0.2] if iteration == 5 else [0.2]),
            )
    shutil.rmtree(tmp_path / "again" / "iteration-00000006")
    best = [path.name for path in (tmp_path / "again" / "best").iterdir()]
    assert best == ["iteration-00000004.safetensors"]
    train(
        *(settings, sources(boxes), table, tmp_path / "b", tmp_path / "again"), validation=Scores([0.2, 0.3])
    )
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(TrainingError, match="which weights are the best"):
        train(settings, sources(boxes), table, tmp_path / "c", tmp_path / "wc")


def test_the_backbone_learns_at_its_own_rate(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    train(config(1, warmup_factor=0.0), sources(boxes), table, tmp_path / "first", tmp_path / "w1")
    slow = config(3, backbone_multiplier=0.0)
    train(slow, sources(boxes), table, tmp_path / "second", tmp_path / "w2")
    first = load_file(tmp_path / "first" / "model.safetensors")
    second = load_file(tmp_path / "second" / "model.safetensors")
    learnt = [n for n in first if n.endswith(("weight", "bias")) and not torch.equal(first[n], second[n])]
    assert learnt
    assert not [name for name in learnt if name.startswith("backbone.bottom_up")]
    assert [name for name in learnt if name.startswith("backbone.")]  # the pyramid is no backbone


def test_less_memory_gives_the_same_weights(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    for name, recompute in (("a", False), ("b", True)):
        out, work = tmp_path / name, tmp_path / f"w{name}"
        train(config(3), sources(boxes), table, out, work, runtime=Runtime(recompute=recompute))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    torch.testing.assert_close(first, second)


@pytest.mark.slow
def test_a_compiled_backbone_trains_alike(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        out, work = tmp_path / f"{compiled}", tmp_path / f"work-{compiled}"
        train(config(6), sources(boxes), table, out, work, runtime=Runtime(compile=compiled))
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        losses[compiled] = [line["loss"] for line in lines]
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    assert load_file(tmp_path / "True" / "model.safetensors").keys() == (
        load_file(tmp_path / "False" / "model.safetensors").keys()
    )
    load_model(tmp_path / "True")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, workers: int
) -> None:
    images = tmp_path / "images"
    shutil.copytree(boxes.image_root, images)
    for path in images.iterdir():
        path.write_bytes(path.read_bytes()[:60])
    broken = Dataset.open(boxes.folder, image_root=images, cache=boxes.cache)
    runtime = Runtime(workers=workers)
    with pytest.raises(PartsegError) as caught:
        train(config(2), sources(broken), table, tmp_path / "a", tmp_path / "work", runtime=runtime)
    assert str(images) in str(caught.value)
    assert "Traceback" not in str(caught.value)


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.messages: list[str] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.messages.append(message)

    def log(self, message: str) -> None:
        self.lines.append(message)


def test_speed_is_told_but_is_no_part_of_the_result(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path
) -> None:
    listener = Listener()
    train(config(7, batches=2), sources(boxes), table, tmp_path / "a", tmp_path / "work", listener)
    speed = [json.loads(line) for line in (tmp_path / "work" / "throughput.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in speed] == [3, 6, 7]
    for line in speed:
        assert line["images_per_second"] > 0
        assert 0 < line["data_share"] < 1
        assert line["memory_bytes"] > 10 * 2**20
        assert (
            line["images_per_second"] * line["seconds_per_iteration"] <= 2 * 2 * 1.01
        )  # images of an iteration
    assert "images/s" in listener.messages[-1]
    assert any("waiting for data" in line for line in listener.lines)
    for line in map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()):
        assert all(name in ("iteration", "lr") or name.startswith("loss") for name in line)


def test_without_tensorboard_there_is_one_line_about_it(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    listener = Listener()
    train(config(2), sources(boxes), table, tmp_path / "a", tmp_path / "work", listener)
    assert sum("tensorboard" in line for line in listener.lines) == 1
    assert not (tmp_path / "work" / "tensorboard").exists()


def test_curves_for_tensorboard(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    every = Runtime(checkpoint_every=4)
    with pytest.raises(TrainingStopped):
        train(config(9), sources(boxes), table, tmp_path / "a", tmp_path / "work", StopAt(7), runtime=every)
    shutil.rmtree(tmp_path / "work" / "iteration-00000007")  # the line of iteration 6 comes a second time
    train(config(9), sources(boxes), table, tmp_path / "a", tmp_path / "work", runtime=every)
    curves = EventAccumulator(str(tmp_path / "work" / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    found = [(event.step, event.value) for event in curves.Scalars("loss")]
    assert found == [(line["iteration"], pytest.approx(line["loss"])) for line in lines]
    assert "throughput/images_per_second" in curves.Tags()["scalars"]
