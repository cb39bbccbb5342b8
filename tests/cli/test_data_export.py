from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from partseg.cli.data_export import export
from partseg.errors import LayoutError, PartsegError
from partseg.layout import Dataset
from partseg.layout.export.coco import to_coco
from tests.layout.conftest import record, write

app = typer.Typer()
app.command()(export)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "img"
    folder.mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (30, 20)).save(folder / f"{name}.jpg")
    return write(tmp_path / "toy", {"train": [record("a", 1), record("b", 2)], "val": [record("c", 3)]})


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))


def run(*words: object) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_one_split_is_one_file(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.json"
    said = json.loads(run(toy, "--split", "val", "--out", out, "--json"))
    assert said == {"format": "coco", "categories": 4, "images": 1, "annotations": 5}
    assert orjson.loads(out.read_bytes()) == to_coco(Dataset.open(toy), "val")
    assert "val.json: 4 categories, 1 images, 5 annotations" in run(toy, "--split", "val", "--out", out)


@pytest.mark.parametrize("splits", [[], ["--split", "all"], ["--split", "val", "--split", "train"]])
def test_several_splits_are_a_folder(toy: Path, tmp_path: Path, splits: list[str]) -> None:
    said = json.loads(run(toy, *splits, "--format", "lvis", "--out", tmp_path / "out", "--json"))
    assert {split: said[split]["images"] for split in ("train", "val")} == {"train": 2, "val": 1}
    found = orjson.loads((tmp_path / "out/train.json").read_bytes())
    assert found == to_coco(Dataset.open(toy), "train", form="lvis")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.json", "val.json"]


def test_semantic_maps_and_hugging_face_are_folders(toy: Path, tmp_path: Path) -> None:
    run(toy, "--split", "val", "--format", "semantic", "--paint", "both", "--out", tmp_path / "maps")
    assert list((tmp_path / "maps").rglob("*.png"))
    words = ("--format", "huggingface", "--raw", tmp_path / "raw", "--out", tmp_path / "hf", "--json")
    assert json.loads(run(toy, *words)) == {"format": "huggingface", "images": 3, "objects": 15}
    assert (tmp_path / "hf/data/train-00000.parquet").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--compat", "tapps", "--format", "coco"],
            "--compat tapps does not write coco; use --format panoptic",
        ),
        (["--compat", "vlpart", "--ids", "source"], "the ids of vlpart are fixed"),
        (["--format", "panoptic_parts", "--ids", "layout"], "the ids of panoptic_parts are fixed"),
        (["--ids", "train"], "--ids train is for semantic maps"),
        (["--format", "semantic", "--base-only"], "are for COCO, LVIS and PACO JSON"),
    ],
)
def test_options_that_contradict_each_other(
    toy: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(PartsegError, match=message):
        run(toy, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_splits_appears_whole_or_not_at_all(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partseg.layout.export import coco

    def full(dataset: Dataset, split: str, out: Path, **options: Any) -> dict[str, int]:
        if split == "val":
            raise LayoutError("the disk is full", where=out)
        return whole(dataset, split, out, **options)

    whole = coco.export
    monkeypatch.setattr(coco, "export", full)
    with pytest.raises(LayoutError, match="disk is full"):
        run(toy, "--out", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "raw", "toy"]


def test_a_place_that_cannot_be_written_is_named(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"toy: cannot be written .*name another place"):
        run(toy, "--split", "val", "--out", toy)
    (tmp_path / "file").write_text("")
    with pytest.raises(LayoutError, match="cannot be written"):
        run(toy, "--format", "semantic", "--out", tmp_path / "file" / "maps")


def test_nothing_is_written_if_a_split_is_unknown(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no split 'test'; it has: train, val"):
        run(toy, "--split", "val", "--split", "test", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(LayoutError, match="the source has no unique image ids"):
        run(toy, "--split", "val", "--ids", "source", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
