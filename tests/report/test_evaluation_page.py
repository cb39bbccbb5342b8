from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.evaluation.assess import assess
from partseg.evaluation.assessment import assessment
from partseg.evaluation.predictions import write_predictions
from partseg.layout import Dataset
from partseg.report.evaluation_page import write_evaluation_page
from partseg.report.evaluation_pictures import COLOURS, InstancePictures
from tests.evaluation.scenes import BODY, HEAD, TAIL, guesses, make_dataset, predicted


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path, 12)


def page(dataset: Dataset, folder: Path, *, compare: bool = False, details: bool = True) -> str:
    path, other = folder / "a.parquet", folder / "b.parquet"
    write_predictions(path, guesses(dataset, 0, 1.5))
    write_predictions(other, guesses(dataset, 1, 0.3))
    items = assess(dataset, "val", path, details=details)
    others = assess(dataset, "val", other) if compare else []
    about = {
        "dataset": "pets & <friends>",
        "split": "val",
        "predictions": str(path),
        "compared": str(other) if compare else None,
    }
    content = assessment(items, about=about, other=others, samples=20)
    write_evaluation_page(content, items, dataset, "val", path, folder / "page.html")
    return (folder / "page.html").read_text()


class _Balance(HTMLParser):
    """Fails on tags that are closed by another's end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_stands_alone(pets: Dataset, tmp_path: Path) -> None:
    html = page(pets, tmp_path, compare=True)
    reader = _Balance()
    reader.feed(html)
    assert reader.open == []
    text = " ".join(reader.words)
    for heading in (
        "Errors by kind",
        "What parts are taken for",
        "Every class",
        "The worst images",
        "Against",
    ):
        assert heading in text
    assert "pets & <friends>" in text
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "Precision over recall" in html


def test_only_what_was_asked_for_is_there(pets: Dataset, tmp_path: Path) -> None:
    html = page(pets, tmp_path, details=False)
    assert "Errors by kind" not in html
    assert "Against" not in html
    assert "wrong, or missed" in html


def test_pictures_show_what_is_right_and_what_is_wrong(pets: Dataset, tmp_path: Path) -> None:
    first = pets.split("val")[0].image_id
    found = predicted([(first, 2, 0.9, HEAD), (first, 2, 0.8, TAIL), (first, 1, 0.9, BODY)])
    write_predictions(tmp_path / "a.parquet", found)
    (item,) = assess(pets, "val", tmp_path / "a.parquet", iou_types=["segm"], details=True)
    names = {category.category_id: category.name for category in pets.categories}
    pictures = InstancePictures(item, Dataset.open(pets.folder).split("val"), found, names)
    true, predictions = (_pixels(panel.uri) for panel in pictures.panels(first))
    head, tail = _middle(true, HEAD), _middle(true, TAIL)
    assert _nearest(head) == "right"
    assert _nearest(tail) == "missed"
    assert _nearest(_middle(predictions, HEAD)) == "right"
    assert _nearest(_middle(predictions, TAIL)) == "classification"


def _pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def _middle(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The colour at the lower right of a box, where no label is written."""
    scale = pixels.shape[0] / 40
    x, y = (int((box[k] + box[k + 2] * 0.8) * scale) for k in (0, 1))
    return np.asarray(np.median(pixels[y - 3 : y + 3, x - 3 : x + 3].reshape(-1, 3), axis=0))


def _nearest(colour: np.ndarray) -> str:
    """The kind whose tint over grey this is; missed and background look the same."""
    tints = {
        name: 0.6 * 205 + 0.4 * np.array(value) for name, value in COLOURS.items() if name != "background"
    }
    return min(tints, key=lambda name: float(np.abs(tints[name] - colour).sum()))
