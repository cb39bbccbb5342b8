from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from partseg.cli.evaluate import evaluate
from partseg.datasets.convert import convert
from partseg.errors import PartsegError
from partseg.evaluation.predictions import write_predictions
from partseg.layout import Dataset
from partseg.layout.export.panoptic import write_coco_panoptic
from partseg.layout.export.semantic import write_semantic
from partseg.synthetic.worlds import make_up
from tests.evaluation.scenes import guesses, make_dataset

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    dataset = make_dataset(tmp_path, 12)
    write_predictions(tmp_path / "a.parquet", guesses(dataset, 0, 2.0))
    write_predictions(tmp_path / "b.parquet", guesses(dataset, 1, 0.2))
    return dataset


def test_the_numbers_the_protocol_and_the_classes_are_printed(pets: Dataset, tmp_path: Path) -> None:
    output = run(pets.folder, "--predictions", tmp_path / "a.parquet").stdout
    assert "segm, pets val, 12 images, protocol coco: COCO's average precision" in output
    found = orjson.loads(run(pets.folder, "--predictions", tmp_path / "a.parquet", "--json").stdout)
    for item in found["evaluations"]:
        for name, value in item["metrics"].items():
            assert re.search(rf"{name} +{100 * value:.2f}\s", output), name
    assert re.search(r"cat:head +base +\d", output)


def test_a_comparison_says_whether_it_is_real(pets: Dataset, tmp_path: Path) -> None:
    words = (pets.folder, "--predictions", tmp_path / "a.parquet", "--iou", "bbox", "--bootstrap", 100)
    output = run(*words, "--compare", tmp_path / "b.parquet").stdout
    assert re.search(r"bbox/AP: the second model is \+\d+\.\d\d points apart \(.*\), which is real", output)
    same = run(*words, "--compare", tmp_path / "a.parquet").stdout
    assert "+0.00 points apart (+0.00 to +0.00), which is not more than chance" in same


def test_errors_and_confusion_are_asked_for(pets: Dataset, tmp_path: Path) -> None:
    words = (pets.folder, "--predictions", tmp_path / "a.parquet", "--iou", "segm")
    assert "localisation" not in run(*words).stdout
    assert re.search(r"localisation +\d+ +\+\d", run(*words, "--errors").stdout)


def test_out_keeps_numbers_and_a_page(pets: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (pets.folder, "--predictions", tmp_path / "a.parquet", "--bootstrap", 20, "--out", out)
    run(*words)
    assert [path.name for path in out.iterdir()] == ["metrics.json"]
    first = (out / "metrics.json").read_bytes()
    assert "evaluation.html" in run(*words, "--html", "--raw", tmp_path / "raw").stdout
    content = orjson.loads((out / "metrics.json").read_bytes())
    assert content["evaluations"][0]["metrics"] == orjson.loads(first)["evaluations"][0]["metrics"]
    assert content["bootstrap"]["samples"] == 20
    page = (out / "evaluation.html").read_text()
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page)
    assert page.count("data:image/webp") >= 2
    assert f"{100 * content['evaluations'][0]['metrics']['segm/AP']:.2f}" in page


def test_mistakes_are_told(pets: Dataset, tmp_path: Path) -> None:
    ok = ("--predictions", tmp_path / "a.parquet")
    for words, message in (
        ((*ok, "--html"), "--html needs a folder"),
        ((*ok, "--iou", "masks"), "--iou masks is not understood"),
        ((*ok, "--protocol", "nobody"), "no protocol 'nobody'"),
        ((*ok, "--compare", tmp_path / "b.parquet", "--bootstrap", "0"), "--compare needs samples"),
        (("--predictions", tmp_path / "none.json"), "there are no predictions"),
    ):
        with pytest.raises(PartsegError, match=re.escape(message)):
            run(pets.folder, *words)


def test_protocols_are_listed() -> None:
    output = run("--protocols").stdout
    assert re.search(r"vlpart +table, results +Pascal-Part as VLPart publishes it", output)


def made_up(source: str, folder: Path) -> Dataset:
    raw = folder / f"raw_{source}"
    make_up(source, raw, {"train": 1, "val": 3, "size": 64})
    convert(source, raw, folder / source)
    return Dataset.open(folder / source, image_root=raw)


def test_the_truth_as_prediction_is_perfect(tmp_path: Path) -> None:
    dataset = made_up("coco_panoptic", tmp_path)
    write_coco_panoptic(dataset, "val2017", tmp_path / "panoptic")
    found = orjson.loads(
        run(dataset.folder, "--split", "val2017", "--predictions", tmp_path / "panoptic", "--json").stdout
    )
    (item,) = found["evaluations"]
    assert (item["name"], item["protocol"]["name"], item["metrics"]["panoptic/pq"]) == (
        "panoptic",
        "panopticapi",
        1.0,
    )


def test_maps_of_classes_are_recognised_and_drawn(tmp_path: Path) -> None:
    dataset = made_up("cityscapes_pp", tmp_path)
    maps, out = tmp_path / "maps", tmp_path / "out"
    write_semantic(dataset, "val", maps, ids="train")
    for path in maps.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.roll(pixels, 9, axis=1)).save(path)
    words = (dataset.folder, "--predictions", maps, "--bootstrap", 20, "--out", out, "--html")
    output = run(*words).stdout
    assert "semantic, cityscapes_pp val, 3 images, protocol mmseg" in output
    (item,) = orjson.loads((out / "metrics.json").read_bytes())["evaluations"]
    assert 0.1 < item["metrics"]["semantic/mean_iou"] < 0.95
    assert item["intervals"]["semantic/mean_iou"]["low"] <= item["metrics"]["semantic/mean_iou"]
    assert (out / "evaluation.html").read_text().count("data:image/webp") == 9  # three of each image


def test_torch_is_not_needed(pets: Dataset, tmp_path: Path) -> None:
    code = (
        "import sys, typer; from partseg.cli.evaluate import evaluate; app = typer.Typer(); "
        "app.command()(evaluate); app(sys.argv[1:], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    words = [pets.folder, "--predictions", tmp_path / "a.parquet", "--errors", "--bootstrap", "5"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
