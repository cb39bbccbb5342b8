"""A folder that ``datasets.load_dataset`` of Hugging Face reads: parquet files and a dataset card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from partseg.errors import LayoutError, SourceError
from partseg.layout.files import new_folder
from partseg.layout.reader import Dataset
from partseg.layout.records import Category
from partseg.layout.split import Split
from partseg.progress import Progress, Silent

Photos = Literal["copy", "link", "none"]

_ROWS = 64  # images per row group: with photos about 10 MB, which is what the hub's viewer reads at once
_FILE_BYTES = 500 << 20

_OBJECT = pa.struct(
    [
        ("id", pa.int64()),
        ("category", pa.int64()),
        ("parent", pa.int32()),
        ("bbox", pa.list_(pa.float64(), 4)),
        ("area", pa.float64()),
        ("rle", pa.string()),
        ("is_crowd", pa.bool_()),
        ("is_ignore", pa.bool_()),
        ("score", pa.float32()),
    ]
)
_LABELS = ("pos_category_ids", "neg_category_ids", "not_exhaustive_category_ids")


def write_huggingface(
    dataset: Dataset,
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    photos: Photos = "copy",
    report: Progress | None = None,
) -> dict[str, int]:
    """Write ``out/data/<split>-<number>.parquet`` and ``out/README.md``.

    One row per image. ``objects`` lists its annotations: ``category`` is a ``ClassLabel`` in the order of the
    category table, ``parent`` the position of a part's object in the list, ``bbox`` xywh in pixels, ``rle``
    COCO's compressed counts. ``datasets`` knows no empty split, so those are left out, and no ``-`` in a name
    of one, which becomes ``_``.

    Args:
        dataset: any dataset, opened with ``image_root`` unless ``photos`` is "none".
        out: a new folder; it appears at the end, or not at all.
        splits: names of splits; all by default.
        photos: "copy" puts the files' bytes into the parquet, "link" their absolute paths on this machine.
        report: told after every few images.

    Returns:
        Counts: images, objects.

    Raises:
        LayoutError: no such split, no image, ``out`` is taken, or the folder of the photos is not known.
        SourceError: a photo is missing.
    """
    report = report or Silent()
    readers = [dataset.split(name) for name in (dataset.splits if splits is None else splits)]
    readers = [reader for reader in readers if len(reader)]
    if not readers:
        raise LayoutError("there is no image to write", where=dataset.folder)
    names = {reader.name: re.sub(r"[^\w.]", "_", reader.name) for reader in readers}
    if len(set(names.values())) < len(names):
        raise LayoutError("two splits get the same name", where=dataset.folder, fix="name one --split")
    total, counts = sum(map(len, readers)), {"images": 0, "objects": 0}
    schema = _schema(dataset.categories, photos)
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        for reader in readers:
            with _Files(folder / "data", names[reader.name], schema) as files:
                for rows in _pieces(reader, dataset.categories, photos):
                    files.write(rows)
                    counts["images"] += len(rows)
                    counts["objects"] += sum(len(row["objects"]) for row in rows)
                    report.update(counts["images"], total, reader.name)
        (folder / "README.md").write_text(_card(dataset, list(names.values()), counts), encoding="utf-8")
    return counts


class _Files:
    """The parquet files of one split; a new one is begun when the last is large enough."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._number, self._bytes, self._open = 0, 0, ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Files:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, rows: list[dict[str, Any]]) -> None:
        if self._bytes > _FILE_BYTES:
            self._begin()
        batch = pa.RecordBatch.from_pylist(rows, self._schema)
        self._writer.write_batch(batch, row_group_size=_ROWS)  # type: ignore[union-attr]
        self._bytes += batch.nbytes

    def _begin(self) -> None:
        self._open.close()
        path = self._folder / f"{self._split}-{self._number:05d}.parquet"
        writer = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_index=True)
        self._writer = self._open.enter_context(writer)
        self._number, self._bytes = self._number + 1, 0


def _pieces(reader: Split, categories: Sequence[Category], photos: Photos) -> Iterator[list[dict[str, Any]]]:
    places = {item.category_id: place for place, item in enumerate(categories)}
    for start in range(0, len(reader), _ROWS):
        stop = min(start + _ROWS, len(reader))
        yield [_row(reader, index, places, photos) for index in range(start, stop)]


def _row(reader: Split, index: int, places: dict[int, int], photos: Photos) -> dict[str, Any]:
    record = reader[index]
    columns = zip(
        record.ann_ids.tolist(),
        [places[key] for key in record.category_ids.tolist()],
        [None if parent < 0 else parent for parent in record.parent_rows.tolist()],
        record.boxes_xywh.tolist(),
        record.areas.tolist(),
        [None if rle is None else rle.decode("ascii") for rle in record.rles],
        record.is_crowd.tolist(),
        record.is_ignore.tolist(),
        [score if score == score else None for score in record.scores.tolist()],  # nan: a person's
        strict=True,
    )
    keys = _OBJECT.names
    row: dict[str, Any] = {
        "image_id": record.image_id,
        "file_name": record.file_name,
        "height": record.height,
        "width": record.width,
        **{name: [places[key] for key in getattr(record, name).tolist()] for name in _LABELS},
        "objects": [dict(zip(keys, values, strict=True)) for values in columns],
    }
    return row if photos == "none" else {"image": _photo(reader.image_path(index), photos), **row}


def _photo(path: Path, photos: Photos) -> dict[str, Any]:
    try:
        if photos == "link":
            path.stat()
            return {"bytes": None, "path": str(path)}
        return {"bytes": path.read_bytes(), "path": path.name}
    except OSError as error:
        raise SourceError(
            f"the photo cannot be read ({error.strerror})", where=path, fix="check --raw, or --photos none"
        ) from error


def _schema(categories: Sequence[Category], photos: Photos) -> pa.Schema:
    """The columns, with the features of ``datasets`` beside them as its own writer puts them there."""
    image = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    fields = [
        *(image if photos != "none" else []),
        pa.field("image_id", pa.int64()),
        pa.field("file_name", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        *(pa.field(name, pa.list_(pa.int64())) for name in _LABELS),
        pa.field("objects", pa.list_(_OBJECT)),
    ]
    label = {"names": [item.name for item in categories], "_type": "ClassLabel"}
    features: dict[str, Any] = {field.name: _feature(field.type) for field in fields}
    features["objects"]["feature"]["category"] = label
    features |= {name: {"feature": label, "_type": "List"} for name in _LABELS}
    if photos != "none":
        features["image"] = {"_type": "Image"}
    return pa.schema(fields, metadata={"huggingface": orjson.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def _card(dataset: Dataset, splits: list[str], counts: dict[str, int]) -> str:
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    licences = sorted({str(item["licence"]) for item in dataset.manifest.sources if item.get("licence")})
    head = {
        "pretty_name": dataset.manifest.name,
        "task_categories": ["object-detection", "image-segmentation"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
            f"# {dataset.manifest.name}\n",
            f"{counts['images']:,} images with {counts['objects']:,} annotated objects and parts, of "
            f"{len(dataset.categories):,} categories; splits: {', '.join(splits)}.\n",
            "`objects[i].parent` is the position of a part's object in the list, `bbox` is x, y, width,",
            "height in pixels, and `rle` a mask in COCO's compressed form:\n",
            "```python",
            'size = [row["height"], row["width"]]',
            'mask = pycocotools.mask.decode({"size": size, "counts": row["objects"][0]["rle"]})',
            "```\n",
            *([f"Licence of the source: {', '.join(licences)}.\n"] if licences else []),
        ]
    )
