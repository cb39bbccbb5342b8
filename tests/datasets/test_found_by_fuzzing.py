"""What damaged raw folders (``tests/faults/test_fuzz_raw.py``) have once brought to light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from partseg.datasets.convert import convert
from partseg.errors import SourceError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.synthetic import make_up

SMALL = {"train": 2, "val": 1, "size": 48}


@pytest.mark.parametrize("line", ["/", "../../up", "x" * 5000, "\x00", "é"])
@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("pascal_part", "VOCdevkit/VOC2010/ImageSets/Main/train.txt"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/train.txt"),
    ],
)
def test_a_list_with_something_that_names_no_image(source: str, path: str, line: str, tmp_path: Path) -> None:
    make_up(source, tmp_path / "raw", SMALL)
    names = tmp_path / "raw" / path
    names.write_text(f"{names.read_text()}{line}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"train\.txt: .* is not the name of an image; repair the list"):
        convert(source, tmp_path / "raw", tmp_path / "out", options={"allow_missing": True})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [{"counts": ""}, None, 7])
def test_a_part_category_whose_name_is_none(name: Any, tmp_path: Path) -> None:
    make_up("partimagenet_supercat", tmp_path / "raw", SMALL)
    path = tmp_path / "raw" / "train.json"
    content = orjson.loads(path.read_bytes())
    content["categories"][30]["name"] = name
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(SourceError, match=r"train\.json: category 30 has no name"):
        convert("partimagenet_supercat", tmp_path / "raw", tmp_path / "out")


def test_a_score_that_is_no_probability_stays_beside_the_column(tmp_path: Path) -> None:
    make_up("coco_json", tmp_path / "raw", SMALL)
    path = tmp_path / "raw" / "val.json"
    content = orjson.loads(path.read_bytes())
    content["annotations"][0]["score"] = 3.0
    path.write_bytes(orjson.dumps(content))
    options = {"annotations": {"val": "val.json"}}
    convert("coco_json", tmp_path / "raw", tmp_path / "out", options=options)
    dataset = Dataset.open(tmp_path / "out")
    assert audit(dataset) == []
    assert dataset.manifest.findings == {"bad-score": 1}
    assert orjson.loads(dataset.split("val").table("annotations")["extra"][0].as_py())["score"] == 3.0
