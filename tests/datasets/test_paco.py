"""PACO: parts belong to their objects, attributes are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from partseg.datasets import paco_lvis_v1
from partseg.datasets.convert import convert
from partseg.datasets.source import Raw
from partseg.layout import Dataset
from partseg.layout.export.coco import export
from partseg.layout.runs import encode_counts
from partseg.synthetic.raw_paco import write_paco_ego4d, write_paco_lvis

SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("source", "write"), [("paco_lvis_v1", write_paco_lvis), ("paco_ego4d_v1", write_paco_ego4d)]
)
def test_a_made_up_folder_comes_back_exactly(tmp_path: Path, source: str, write: Any) -> None:
    write(tmp_path / "raw", seed=4, train=5, val=2, test=2, size=64)
    counts = convert(source, tmp_path / "raw", tmp_path / "dataset", options={"images": "hash"})
    assert (counts["images"], counts["findings"]) == (9, 0)
    dataset = Dataset.open(tmp_path / "dataset")
    rows = {row.category_id: row for row in dataset.categories}
    assert rows[2069].name == "dog:body"
    assert (rows[2069].kind, rows[2069].parent_id, rows[378].kind) == ("part", 378, "object")
    for split in SPLITS:
        expected = orjson.loads((tmp_path / f"raw/annotations/{source}_{split}.json").read_bytes())
        export(dataset, split, tmp_path / "out.json", ids="source")
        assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected
        parents = {item["id"]: item["obj_ann_id"] for item in expected["annotations"]}
        table = dataset.split(split).table("annotations").to_pylist()
        source_ids = {row["ann_id"]: row["source_id"] for row in table}
        for row in table:
            whole = row["source_id"] if row["parent_id"] is None else source_ids[row["parent_id"]]
            assert whole == parents[row["source_id"]]


def test_what_the_columns_cannot_say_is_kept(tmp_path: Path) -> None:
    counts = {"size": [4, 6], "counts": encode_counts([4, 20]).decode()}
    row: dict[str, Any] = {
        "id": 1,
        "image_id": 5,
        "category_id": 10,
        "bbox": [0, 0, 1, 1],
        "area": 20,
        "segmentation": counts,
        "attribute_ids": [3, 1],
        "obj_ann_id": 1,
        "dom_color_ids": [2],
        "unknown_color": 1,
    }
    image = {"id": 5, "file_name": "val2017/5.jpg", "height": 4, "width": 6}
    content = {
        "images": [{**image, "neg_category_ids": [2000], "neg_category_ids_attrs": [7]}],
        "annotations": [
            {**row, "id": 2, "category_id": 2000, "segmentation": []},
            row,
            {**row, "id": 3, "category_id": 2000, "obj_ann_id": 44},
            {**row, "id": 4, "attribute_ids": "red", "obj_ann_id": 4},
        ],
        "categories": [{"id": 2000, "name": "dog:head"}, {"id": 10, "name": "dog"}],
        "queries": [{"id": 1, "structured_query": ["dog", ["dog:head", "red"]]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = paco_lvis_v1.Options(annotations={"test": "a.json"}, images="none")
    raw = Raw(tmp_path, tmp_path / "scratch")
    (record,) = paco_lvis_v1.read(raw, "test", ["5"], options)
    assert [(item.source_id, item.parent) for item in record.annotations] == [
        (1, None),
        (4, None),
        (2, 0),
        (3, None),
    ]
    assert record.annotations[0].attributes == (3, 1)
    assert record.annotations[0].extra == {"dom_color_ids": [2], "unknown_color": 1}
    assert record.image is not None
    assert record.image.extra == {"neg_category_ids_attrs": [7]}
    assert record.image.neg_category_ids == (2000,)
    assert sorted(item.reason for item in record.findings) == ["bad-attributes", "unknown-object"]
    assert paco_lvis_v1.details(raw, options)["test"]["top_level"] == {"queries": content["queries"]}
    chosen = {"annotations": {"test": "a.json"}, "images": "none"}
    convert("paco_lvis_v1", tmp_path, tmp_path / "dataset", options=chosen)
    export(Dataset.open(tmp_path / "dataset"), "test", tmp_path / "b.json", ids="source")
    assert orjson.loads((tmp_path / "b.json").read_bytes()) == content
