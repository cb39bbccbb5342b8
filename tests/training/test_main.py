from __future__ import annotations

import json
from pathlib import Path

import pytest

from partseg.layout import Dataset
from partseg.training.__main__ import main
from partseg.training.loop import train
from partseg.vocabulary import build_table
from tests.training.test_loop import config, files, source


def test_a_job_file_gives_what_the_call_gives(
    boxes: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = build_table([c.name for c in boxes.categories], encoder="offline:32")
    table.save(tmp_path / "table.safetensors")
    job = {
        "train": config(2).model_dump(mode="json"),
        "sources": [{"dataset": str(boxes.folder), "images": str(boxes.image_root), "names": ["box:top"]}],
        "embeddings": str(tmp_path / "table.safetensors"),
        "out": str(tmp_path / "out"),
        "work": str(tmp_path / "work"),
        "cache": str(boxes.cache),
        "runtime": {"device": "cpu", "checkpoint_every": 1},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert main([str(tmp_path / "job.json")]) == 0
    assert "2/2 loss" in capsys.readouterr().err
    only = [source(boxes, "train", names=frozenset({"box:top"}))]
    train(config(2), only, table, tmp_path / "call", tmp_path / "work-call")
    assert files(tmp_path / "out") == files(tmp_path / "call")


def test_faults_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text('{"sources": []}')
    assert main([str(tmp_path / "job.json")]) == 2
    assert "train: Field required" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
