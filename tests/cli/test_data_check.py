from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from partseg.cli import data_check
from partseg.layout import Dataset
from partseg.layout.checks import FOUND, check
from partseg.report.check_page import worst, write_check_page
from tests.layout.test_checks import TRAIN, put, record, write

app = typer.Typer()
app.command()(data_check.check)


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write(tmp_path / "toy", {"train": [record("a"), record("c")], "val": [record("d")]})


@pytest.fixture
def doubtful(sound: Path) -> Path:
    put(sound, TRAIN, "area", 0, 180.0)
    put(sound, TRAIN, "area", 5, 1000.0)
    return sound


@pytest.fixture
def wrong(doubtful: Path) -> Path:
    put(doubtful, TRAIN, "score", 2, 7.0)
    return doubtful


def test_a_sound_dataset_is_said_to_be_sound(sound: Path) -> None:
    assert run(sound).stdout == f"{sound}: sound\n"
    assert json.loads(run(sound, "--json").stdout) == {"errors": 0, "warnings": 0, "notes": 0, "rules": {}}


def test_the_worst_case_of_a_rule_comes_first(doubtful: Path) -> None:
    rule = json.loads(run(doubtful, "--json").stdout)["rules"]["area-not-of-mask"]
    assert (rule["severity"], rule["cases"]) == ("warning", 2)
    assert [case["ann_id"] for case in rule["worst"]] == [6, 1]
    text = run(doubtful).stdout
    assert text.index("split train, image 2, annotation 6") < text.index("split train, image 1, annotation 1")
    assert "2 warnings" in text


def test_the_exit_code_says_how_bad_it_is(doubtful: Path) -> None:
    run(doubtful, code=0)
    run(doubtful, "--fail-on", "warning", code=1)
    put(doubtful, TRAIN, "score", 2, 7.0)
    run(doubtful, code=2)
    run(doubtful, "--fail-on", "warning", code=2)
    run(doubtful, "--fail-on", "never", code=0)
    run(doubtful, "--quick", code=2)


def test_all_cases_go_to_a_parquet_file(wrong: Path, tmp_path: Path) -> None:
    run(wrong, "--findings", tmp_path / "cases.parquet", code=2)
    table = pq.read_table(tmp_path / "cases.parquet")
    assert table.schema.equals(FOUND)
    assert sorted(table["rule"].to_pylist()) == ["area-not-of-mask", "area-not-of-mask", "score-range"]


def test_several_datasets_are_checked_against_each_other(tmp_path: Path) -> None:
    name = "000000000009"
    for folder, split in (("one", "train"), ("two", "val")):
        item = record("a", file_name=f"{split}2017/{name}.jpg", sha256=None)
        write(tmp_path / folder, {split: [item]}, image_source=folder)
    text = run(tmp_path / "one", tmp_path / "two").stdout
    assert f"two, split val, image 1: val2017/{name}.jpg is in one train, too" in text


def test_the_page_shows_the_cases_and_needs_nothing_else(wrong: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run(wrong, "--html", page, code=2)
    html = page.read_text()
    assert "1 error, 2 warnings" in html
    assert html.count("data:image/webp;base64,") == 3
    assert "its area is 1000 px" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_a_page_can_be_drawn_of_what_cannot_be_read(sound: Path, tmp_path: Path) -> None:
    put(sound, TRAIN, "rle", 0, b"\x01")
    put(sound, TRAIN, "bbox", 6, [float("nan"), 1e30, 5.0, -1.0])
    (sound / "images/val.parquet").unlink()
    dataset = Dataset.open(sound)
    write_check_page({"toy": dataset}, check([dataset]), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert all(code in html for code in ("mask-malformed", "box-not-finite", "file-missing"))


def test_the_page_prefers_cases_of_different_images(sound: Path) -> None:
    for at, area in ((0, 180.0), (2, 5000.0), (4, 4000.0), (9, 200.0)):
        put(sound, TRAIN, "area", at, area)
    cases = check([Dataset.open(sound)])
    assert [case["ann_id"] for case in worst(cases, "area-not-of-mask", 3)] == [3, 10, 5]


@pytest.mark.parametrize(
    "module", ["partseg.cli.data_check", "partseg.cli.data_look", "partseg.report.check_page"]
)
def test_nothing_here_imports_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
