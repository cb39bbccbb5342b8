from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from partseg.cli.data_synthetic import synthetic
from partseg.datasets.catalogue import source_module
from partseg.datasets.source import Raw
from partseg.errors import LayoutError, SourceError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(synthetic)
    return app


def test_a_made_up_folder_is_one_the_source_reads(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "raw"
    result = CliRunner().invoke(app, ["pascal_part", "--out", str(out), "-o", "train=2", "-o", "size=48"])
    assert result.exit_code == 0
    assert result.stdout.strip().endswith("raw: 14 files")
    module = source_module("pascal_part")
    found = module.splits(Raw(out, tmp_path), module.Options())
    assert {split: len(keys) for split, keys in found.items()} == {"train": 2, "val": 4}


def test_the_folders_come_from_the_source_s_options(app: typer.Typer, tmp_path: Path) -> None:
    arguments = ["imagenet_folder", "--out", str(tmp_path / "raw"), "--source-option", "classes={n1: cat}"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["n1"]


def test_a_mistake_leaves_nothing_behind(app: typer.Typer, tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["pascal_part", "--out", str(tmp_path / "raw"), "-o", "trains=2"])
    assert isinstance(wrong.exception, SourceError)
    assert not list(tmp_path.iterdir())
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine").touch()
    taken = CliRunner().invoke(app, ["pascal_part", "--out", str(tmp_path / "raw")])
    assert isinstance(taken.exception, LayoutError)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["mine"]
