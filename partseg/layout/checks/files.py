"""Rules about the files of a dataset: each is the one the manifest describes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from partseg.files import sha256_file
from partseg.layout.checks.found import Found, Rule
from partseg.layout.manifest import FileEntry, SplitEntry
from partseg.layout.reader import Dataset
from partseg.layout.schema import CATEGORIES, TABLES

MISSING = Rule("file-missing", "error", "a file of the dataset is not there")
CHANGED = Rule("file-changed", "error", "a file is not the one the manifest describes")
SCHEMA = Rule("columns-differ", "error", "a table does not have the columns of the layout")
ROWS = Rule("rows-differ", "error", "a table does not have as many rows as the manifest says")
RULES = (MISSING, CHANGED, SCHEMA, ROWS)


def check_categories(dataset: Dataset, found: Found) -> bool:
    """Whether the file of the category table is sound."""
    return _check(dataset, dataset.manifest.categories, CATEGORIES, None, found)


def check_split(dataset: Dataset, name: str, found: Found) -> bool:
    """Whether the files of a split are sound, so that its tables can be read."""
    entries = _entries(dataset.manifest.splits[name])
    sound = [_check(dataset, entry, TABLES[kind], name, found) for kind, entry in entries.items()]
    return all(sound)


def _entries(split: SplitEntry) -> dict[str, FileEntry]:
    entries = {kind: getattr(split, kind) for kind in TABLES}
    return {kind: entry for kind, entry in entries.items() if entry is not None}


def _check(dataset: Dataset, entry: FileEntry, schema: Any, split: str | None, found: Found) -> bool:
    path = dataset.folder / entry.path
    if not path.is_file():
        found.add(MISSING, f"{entry.path} is missing", split=split)
        return False
    if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
        text = f"{entry.path} is not the file the manifest describes (size or sha256 differs)"
        found.add(CHANGED, text, split=split)
        return False
    try:
        with pq.ParquetFile(path) as file:
            present, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        found.add(SCHEMA, f"{entry.path} cannot be read ({error})", split=split)
        return False
    # A dataset of an older minor version may lack columns; they are read as nulls.
    lacking = [field.name for field in schema if field.name not in present.names and not field.nullable]
    wrong = [field.name for field in present if field.name in schema.names and not _same(field, schema)]
    if lacking or wrong:
        text = f"{entry.path} lacks {', '.join(lacking)}" if lacking else f"{entry.path}: type of {wrong[0]}"
        found.add(SCHEMA, text, split=split)
        return False
    if rows != entry.rows:
        found.add(ROWS, f"{entry.path} has {rows} rows, not {entry.rows}", split=split)
    return bool(rows == entry.rows)


def _same(field: Any, schema: Any) -> bool:
    wanted = schema.field(field.name)
    return bool(field.type.equals(wanted.type) and field.nullable == wanted.nullable)
