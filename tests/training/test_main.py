from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.training.__main__ import EventLines, main
from partseg.training.config import AugmentConfig, Runtime, source
from partseg.training.job import Job, JobSource, JobValidation, read_job, write_job
from partseg.training.loop import train
from partseg.training.runner import run_job
from partseg.training.stopping import TrainingStopped
from partseg.training.validation import MaskAP
from partseg.vocabulary import EmbeddingTable
from tests.training.ranks import start
from tests.training.trainings import StopAt, config, files


def job(boxes: Dataset, table: EmbeddingTable, folder: Path, **changes: Any) -> Path:
    """A job file: boxes of one category, a validation after two iterations and at the end."""
    table.save(folder / "table.safetensors")
    place = {"dataset": boxes.folder, "images": boxes.image_root}
    values: dict[str, Any] = {
        "train": config(3),
        "sources": (JobSource(**place, names=("box:top",), augment=AugmentConfig(short_sides=(64, 64))),),
        "embeddings": folder / "table.safetensors",
        "out": folder / "out",
        "work": folder / "work",
        "cache": boxes.cache,
        "validation": JobValidation(**place, split="train", every=2, limit=3),
        "runtime": Runtime(device="cpu", checkpoint_every=1),
    }
    write_job(folder / "job.json", Job(**{**values, **changes}))
    return folder / "job.json"


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_file_gives_what_the_call_gives(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(job(boxes, table, tmp_path))]) == 0
    said = events(capsys.readouterr().out)
    progress = [one for one in said if one["event"] == "progress"]
    assert progress[-1] == {"event": "progress", "done": 3, "total": 3, "message": progress[-1]["message"]}
    assert progress[-1]["message"].startswith("loss ")
    assert said[-1]["event"] == "finished"
    only = [source(boxes, "train", names=frozenset({"box:top"}), augment=AugmentConfig(short_sides=(64, 64)))]
    measured = MaskAP(boxes, "train", table, every=2, limit=3)
    metrics = train(config(3), only, table, tmp_path / "call", tmp_path / "work-call", validation=measured)
    assert said[-1]["metrics"] == metrics
    assert set(metrics) == {"iterations", "loss", "validation/segm/AP"}
    assert files(tmp_path / "out") == files(tmp_path / "call")


def test_a_job_comes_back_from_its_file(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    path = job(boxes, table, tmp_path)
    first = read_job(path)
    write_job(path, first)
    assert read_job(path) == first
    assert first.sources[0].augment == AugmentConfig(short_sides=(64, 64))
    with pytest.raises(ValidationError, match="workerz"):
        Job.model_validate({**first.model_dump(), "runtime": {"workerz": 2}})


def test_reading_a_job_needs_no_torch(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    code = "import sys, pathlib; from partseg.training.job import read_job; "
    code += "read_job(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, job(boxes, table, tmp_path)], check=True)


def test_faults_are_told_in_one_line(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"sources": []}')
    assert main([str(broken)]) == 2
    (failed,) = events(capsys.readouterr().out)
    assert (failed["event"], failed["where"]) == ("failed", str(broken))
    assert "train: Field required" in failed["fix"]
    assert main([]) == 2
    assert main([str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().out
    wrong = JobSource(dataset=boxes.folder, images=boxes.image_root, names=("lid",))
    assert main([str(job(boxes, table, tmp_path, sources=(wrong,)))]) == 2
    assert "lid" in capsys.readouterr().out


def test_nothing_to_validate_on_is_told(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    nothing = MaskAP(boxes, "train", table, every=1, names=("thing",))
    sources = [source(boxes, "train")]
    with pytest.raises(TrainingError, match="show nothing that is looked for"):
        train(config(1), sources, table, tmp_path / "a", tmp_path / "work", validation=nothing)
    with pytest.raises(TrainingError, match="no category 'lid'"):
        MaskAP(boxes, "train", table, every=1, names=("lid",))


def test_a_stopped_training_leaves_a_checkpoint_and_says_so(
    boxes: Dataset,
    table: EmbeddingTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = job(boxes, table, tmp_path, validation=None, runtime=Runtime(device="cpu"))
    for number in (signal.SIGTERM, signal.SIGINT):
        with monkeypatch.context() as patched:
            stop = StopAt(1 if number == signal.SIGTERM else 2, number)
            patched.setattr(EventLines, "update", lambda _, *progress, stop=stop: stop.update(*progress))
            assert main([str(path)]) == 3
        assert events(capsys.readouterr().out)[-1]["event"] == "stopped"
        assert (tmp_path / "work" / f"iteration-{stop.iteration:08d}").exists()
    assert main([str(path)]) == 0
    only = [source(boxes, "train", names=frozenset({"box:top"}), augment=AugmentConfig(short_sides=(64, 64)))]
    train(config(3), only, table, tmp_path / "call", tmp_path / "work-call")
    assert files(tmp_path / "out") == files(tmp_path / "call")


def test_progress_comes_at_most_ten_times_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    lines = EventLines(sys.stdout)
    for done in range(1, 101):
        lines.update(done, 100)
    said = events(capsys.readouterr().out)
    assert len(said) < 10
    assert said[-1]["done"] == 100


def test_a_training_nobody_listens_to_goes_on(boxes: Dataset, table: EmbeddingTable, tmp_path: Path) -> None:
    path = job(boxes, table, tmp_path, validation=None)

    def run() -> int:
        reading, writing = os.pipe()
        os.close(reading)
        sys.stdout = os.fdopen(writing, "w")
        code = main([str(path)])
        sys.stdout.flush()
        return code

    assert start(run).result() == 0
    assert (tmp_path / "out" / "model.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_torchrun_that_is_stopped_leaves_a_checkpoint_and_no_process(
    boxes: Dataset, table: EmbeddingTable, tmp_path: Path, workers: int
) -> None:
    """SIGTERM to torchrun alone; the checkpoint is that of one process that was stopped there."""
    settings = config(500, batches=2)
    path = job(
        *(boxes, table, tmp_path),
        train=settings,
        validation=None,
        runtime=Runtime(device="cpu", workers=workers),
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, "-m", "partseg.training", path],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "errors").open("w"),
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(json.loads(line))
        if said[-1].get("done", 0) >= 2 and process.poll() is None:
            process.terminate()
            break
    said += [json.loads(line) for line in process.stdout]
    process.wait()
    assert said[-1]["event"] == "stopped", (tmp_path / "errors").read_text()
    assert sum(one["event"] == "stopped" for one in said) == 1
    (checkpoint,) = (tmp_path / "work").glob("iteration-*")
    done = int(checkpoint.name[-8:])
    assert 2 <= done < 500
    deadline = time.monotonic() + 15  # reading processes look for their parent every five seconds
    while left := _group(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    other = tmp_path / "other"
    other.mkdir()
    again = job(boxes, table, other, train=settings, validation=None, runtime=Runtime(device="cpu"))

    def alone() -> None:
        run_job(read_job(again), StopAt(done))

    with pytest.raises(TrainingStopped):
        start(alone).result()
    name = f"iteration-{done:08d}/model.safetensors"
    assert (tmp_path / "work" / name).read_bytes() == (other / "work" / name).read_bytes()


def _group(number: int) -> list[str]:
    """Processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[2] == str(number) and fields[0] != "Z":
            found.append(path.parent.name)
    return found
