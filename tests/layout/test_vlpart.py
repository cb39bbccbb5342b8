from __future__ import annotations

import json
from pathlib import Path

import pytest

from partseg.datasets.convert import convert
from partseg.errors import LayoutError
from partseg.layout import Category, Dataset, DatasetWriter, ImageRow, Record
from partseg.layout.export.coco import export

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "imagenet_select" / "a"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden JSON files lie beside the repository")
@pytest.mark.parametrize(
    ("source", "golden"),
    [("partimagenet", "partimagenet_format"), ("partimagenet_supercat", "partimagenet_supercat")],
)
def test_partimagenet_exports_as_vlparts_tools_write_it(source: str, golden: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/train.json").write_bytes((GOLDEN / "partimagenet_in.json").read_bytes())
    options = {"splits": ["train"], "images": "none"}
    convert(source, tmp_path / "raw", tmp_path / "out", options=options)
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    export(dataset, "train", tmp_path / "train.json", compat="vlpart")
    expected = json.loads((GOLDEN / f"{golden}.json").read_text())
    assert json.loads((tmp_path / "train.json").read_text()) == expected


def test_other_datasets_have_no_such_file(tmp_path: Path) -> None:
    writer = DatasetWriter(
        tmp_path / "out",
        name="mine",
        categories=[Category(category_id=1, name="dog", kind="object")],
        converter={"name": "mine"},
        image_source="mine",
    )
    with writer:
        image = ImageRow(file_name="a.jpg", height=4, width=4, source_key="a")
        writer.write("train", Record(image=image))
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    with pytest.raises(LayoutError, match="VLPart has no tool for mine; leave out --compat vlpart"):
        export(dataset, "train", tmp_path / "train.json", compat="vlpart")
