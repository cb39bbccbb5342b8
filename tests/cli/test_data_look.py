from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from partseg.cli import data_look
from partseg.errors import LayoutError
from partseg.layout import Dataset
from partseg.layout.statistics import statistics
from partseg.report.pictures import grey, scene, title
from tests.layout.test_checks import CAT, CATEGORIES, DOG, HEAD, HEIGHT, WIDTH, record, row, rows, write

app = typer.Typer()
app.command()(data_look.stats)
app.command()(data_look.show)
LVIS = {"neg_category_ids": (11,), "not_exhaustive_category_ids": (12, 20)}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    cats = [row(12, CAT), row(12, (1, 1, 4, 4), rle=None)]
    splits = {
        "train": [record("a"), record("b", []), record("c", cats, pos_category_ids=(), **LVIS)],
        "val": [record("d", [], pos_category_ids=(11,))],
    }
    folder = write(tmp_path / "toy", splits)
    for key in "abcd":
        path = tmp_path / "raw/img" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 200)).save(path)
    return folder


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_statistics_count_what_is_there(toy: Path) -> None:
    content = statistics(Dataset.open(toy))
    train = content["splits"]["train"]
    assert {key: train[key] for key in ("images", "objects", "parts", "stuff", "masks", "crowds")} == {
        "images": 3,
        "objects": 4,
        "parts": 2,
        "stuff": 1,
        "masks": 6,
        "crowds": 0,
    }
    assert train["images_without_annotations"] == 1
    assert train["objects_without_parts"] == 2
    assert train["parts_per_object"] == {"min": 0.0, "median": 0.5, "mean": 0.5, "max": 1.0}
    assert train["annotations_per_image"]["max"] == 5.0
    assert train["width"]["median"] == WIDTH
    assert train["labels"] == {
        "pos": {"images": 2, "labels": 4},
        "neg": {"images": 1, "labels": 1},
        "not_exhaustive": {"images": 1, "labels": 2},
    }
    assert train["areas"]["part"]["small"] == 2
    assert content["categories"]["train"] == {"dog:head": 1, "cat:paw": 1, "dog": 1, "cat": 3, "sky": 1}
    assert content["categories"]["val"] == {"dog": 1}  # the label: the split has no annotations
    assert content["category_sizes"]["train"]["cat"] == {"images": 2, "median_area": 120.0}


def test_stats_prints_tables_and_json(toy: Path) -> None:
    text = run("stats", toy).stdout
    assert "dog:head" in text
    assert "1 neg, 2 not_exhaustive" in text
    assert json.loads(run("stats", toy, "--json").stdout)["splits"]["val"]["images"] == 1


def test_show_draws_one_image_with_its_photo_or_without(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.png"
    done = run("show", toy, "--split", "train", "--image", "a", "--out", out, "--raw", tmp_path / "raw")
    assert "a · 2 objects, 2 parts, 1 stuff" in done.stdout
    with_photo = np.asarray(Image.open(out))
    run("show", toy, "--split", "train", "--image", "a", "--out", out)
    grey_one = np.asarray(Image.open(out))
    assert with_photo.shape == grey_one.shape
    assert (with_photo[-60, -20] == [10, 20, 200]).all() or with_photo[-60, -20][2] > 150
    assert len(set(grey_one[-60, -20].tolist())) == 1


def test_a_sheet_has_as_many_cells_as_images(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert "3 images" in run("show", toy, "--split", "train", "--sheet", "2x2", "--out", out).stdout
    two_by_two = Image.open(out).size
    run("show", toy, "--split", "train", "--sheet", "1x2", "--out", out)
    one_by_two = Image.open(out).size
    assert one_by_two[0] == two_by_two[0]
    assert one_by_two[1] < two_by_two[1]


def test_images_are_chosen_by_category_and_seed(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    shown = run("show", toy, "--split", "train", "--category", "dog:head", "--sheet", "3x3", "--out", out)
    assert "a · " in shown.stdout  # the only image with a head
    labelled = run("show", toy, "--split", "val", "--category", "dog", "--out", out)
    assert "d · no annotations" in labelled.stdout
    first = {
        seed: run("show", toy, "--split", "train", "--seed", seed, "--out", out).stdout for seed in range(9)
    }
    assert len(set(first.values())) > 1
    assert first[4] == run("show", toy, "--split", "train", "--seed", 4, "--out", out).stdout


@pytest.mark.parametrize(
    "arguments",
    [["--image", "zz"], ["--image", "7"], ["--category", "sofa"], ["--sheet", "4"], ["--sheet", "0x3"]],
)
def test_mistakes_are_explained(toy: Path, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(LayoutError, match=r"no image|no category|not understood"):
        run("show", toy, "--split", "train", "--out", tmp_path / "x.png", *arguments)


def test_two_objects_of_one_category_have_different_colours_and_an_object_is_an_outline(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "dogs", {"train": [record("a", [*rows()[:2], row(11, CAT)])]})
    split = Dataset.open(folder).split("train")
    categories = {category.category_id: category for category in CATEGORIES}
    item = split[0]
    picture = np.asarray(scene(grey(item), item, categories, short_side=HEIGHT * 20)).astype(int)
    (dog_x, dog_y, _, dog_h), (head_x, head_y, _, _), (cat_x, cat_y, _, _) = DOG, HEAD, CAT
    background = picture[-30, 30]
    inside_dog = picture[(dog_y + dog_h - 2) * 20, (dog_x + 1) * 20]
    assert (inside_dog == background).all()  # outlined only: it has a part
    head, other = (
        picture[(head_y + 1) * 20 + 30, head_x * 20 + 10],
        picture[cat_y * 20 + 100, cat_x * 20 + 30],
    )
    assert (head != background).any()
    assert np.abs(head - other).sum() > 60
    assert title(item, categories) == "a · 2 objects, 1 part"
