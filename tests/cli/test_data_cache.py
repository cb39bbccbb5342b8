from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from partseg.cli.data import app
from partseg.layout import Dataset
from partseg.layout.cache import working_files
from tests.layout.test_checks import record, write

MONTHS = 100 * 24 * 3600


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path, cache: Path) -> Dataset:
    """Opened long ago."""
    dataset = Dataset.open(write(tmp_path / "toy", {"train": [record("a"), record("c")]}))
    assert len(dataset.split("train")[0].ann_ids)
    for file in working_files(cache):
        back_date(file.path)
    return dataset


def back_date(path: Path) -> None:
    os.utime(path, (time.time() - MONTHS,) * 2)


def test_without_a_dataset_there_is_nothing(cache: Path) -> None:
    assert run() == "would free 0 B of 0 B: 0 of 0 files; --delete does it\n"


def test_what_was_not_opened_for_long_goes_and_comes_back(dataset: Dataset, cache: Path) -> None:
    assert "2 of 2 files; --delete does it" in run()
    assert len(working_files(cache)) == 2
    open_before = dataset.split("train")
    first = open_before[0].boxes_xywh.copy()
    for file in working_files(cache):
        back_date(file.path)
    assert "freed" in run("--delete")
    assert working_files(cache) == []
    assert (open_before[0].boxes_xywh == first).all()
    assert (dataset.split("train")[0].boxes_xywh == first).all()


def test_opening_a_dataset_keeps_its_files(dataset: Dataset, cache: Path) -> None:
    assert len(dataset.split("train")) == 2  # opens the images alone
    assert "1 of 2 files" in run("--delete")
    assert [file.path.name.split(".")[1] for file in working_files(cache)] == ["images"]
    assert "0 of 1 files" in run("--older", "1", "--delete")
    assert "1 of 1 files" in run("--older", "0", "--delete")


def test_a_file_that_is_being_written_stays_and_one_left_by_a_killed_writer_goes(cache: Path) -> None:
    (cache / "layout").mkdir(parents=True)
    half = cache / "layout" / ".0123.images.v2.arrow.tmp"
    half.write_bytes(b"half")
    assert "0 of 1 files" in run("--older", "0", "--delete")
    back_date(half)
    assert "freed 4 B of 4 B: 1 of 1 files" in run("--older", "0", "--delete")


def test_other_working_files_are_not_touched(cache: Path) -> None:
    (cache / "texts").mkdir(parents=True)
    (cache / "texts" / "rows.safetensors").write_bytes(b"rows")
    back_date(cache / "texts" / "rows.safetensors")
    assert "0 of 0 files" in run("--older", "0", "--delete")
    assert (cache / "texts" / "rows.safetensors").exists()
