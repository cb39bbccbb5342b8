from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from partseg.files import sha256_file
from partseg.layout import Dataset
from partseg.layout.audit import audit
from partseg.layout.schema import parquet_writer


def replace(toy: Path, path: str, column: str, values: Callable[[Any], Any]) -> None:
    """Change a column and make the manifest agree, as a careless tool would."""
    table = pq.read_table(toy / path)
    index = table.schema.get_field_index(column)
    changed = table.set_column(index, table.schema.field(index), values(table[column]))
    with parquet_writer(toy / path, table.schema) as writer:
        writer.write_table(changed)
    content = orjson.loads((toy / "dataset.json").read_bytes())
    for split in content["splits"].values():
        for entry in (split["images"], split["annotations"], split["findings"]):
            if entry["path"] == path:
                entry.update(sha256=sha256_file(toy / path), bytes=(toy / path).stat().st_size)
    (toy / "dataset.json").write_bytes(orjson.dumps(content))


def test_a_sound_dataset_has_no_problems(toy: Path) -> None:
    assert audit(Dataset.open(toy)) == []


def test_lost_and_changed_files_are_named(toy: Path) -> None:
    (toy / "images/val.parquet").unlink()
    path = toy / "annotations/train.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    problems = audit(Dataset.open(toy))
    assert any("images/val.parquet is missing" in problem for problem in problems)
    assert any("annotations/train.parquet is not the file" in problem for problem in problems)


def constant(value: Any) -> Callable[[Any], Any]:
    return lambda column: pa.array([value] * len(column), column.type)


@pytest.mark.parametrize(
    ("path", "column", "values", "problem"),
    [
        ("annotations/train", "ann_id", constant(1), "annotation ids do not rise"),
        ("images/train", "image_id", lambda c: pc.subtract(c, 1), "image ids do not rise from 1"),
        ("images/val", "image_id", constant(1), "used in another split"),
        ("images/train", "ann_offset", constant(0), "do not follow one another"),
        ("annotations/train", "image_id", constant(1), "do not match the annotations"),
        ("annotations/train", "parent_id", constant(10), "parent is not an object before it"),
        ("annotations/train", "category_id", constant(77), "category that is not in the table"),
        ("annotations/train", "bbox", constant([0.0, 0.0, 40.0, 2.0]), "not inside its image"),
        ("annotations/train", "rle", constant(b"52"), "its mask covers"),
        ("annotations/train", "rle", constant(b"\x01"), "not a run-length"),
        ("findings/train", "image_dropped", constant(False), "2 images and 0 dropped"),
    ],
)
def test_broken_rules_are_found(
    toy: Path, path: str, column: str, values: Callable[[Any], Any], problem: str
) -> None:
    replace(toy, f"{path}.parquet", column, values)
    assert any(problem in found for found in audit(Dataset.open(toy)))
