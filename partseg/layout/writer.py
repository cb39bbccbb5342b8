"""Writes a dataset in the common layout: atomically, in bounded memory, same records in, same bytes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from partseg.errors import LayoutError
from partseg.files import write_file
from partseg.layout.batches import Chunk, encode, encode_categories
from partseg.layout.files import NewFolder
from partseg.layout.manifest import MANIFEST, READER, Manifest, SplitEntry
from partseg.layout.pandas_first import import_pandas
from partseg.layout.records import Category, Record
from partseg.layout.schema import ANNOTATIONS, CATEGORIES, FORMAT_VERSION
from partseg.layout.table_files import SplitFiles, TableFile

_BUFFERED_RECORDS = 256


class DatasetWriter:
    """Writes one dataset; use it as a context manager.

    Everything goes to a hidden folder beside ``out``, which takes its final name when the block ends
    without an error. Image and annotation ids start at 1 and follow the order of writing.

    Args:
        out: a folder that does not exist yet, or is empty.
        name: name of the dataset.
        categories: the whole category table; ids unique and at least 1, names unique.
        converter: name and settings of what made the records.
        image_source: raw source whose root ``ImageRow.file_name`` is relative to.
        sources: raw sources, with checksums and licences.
        expected: counts from the literature, with their source.
        parents: digests of the datasets this one is derived from.
        origin: "human", or the kind of stage that made the annotations.
        run_id: the key of the run that made them.
        source_records: how many records each split must receive. Splits named here exist even when empty.
        details: for each split, what its source says about it as a whole (JSON).
    """

    def __init__(
        self,
        out: Path,
        *,
        name: str,
        categories: Sequence[Category],
        converter: Mapping[str, Any],
        image_source: str,
        sources: Sequence[Mapping[str, Any]] = (),
        expected: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
        origin: str = "human",
        run_id: str | None = None,
        source_records: Mapping[str, int] | None = None,
        details: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        import_pandas()
        _check_categories(categories)
        self._categories = tuple(categories)
        self._ids = np.array([category.category_id for category in categories], np.int32)
        self._objects = [category.category_id for category in categories if category.kind == "object"]
        self._parts = [category.category_id for category in categories if category.kind == "part"]
        self._head: dict[str, Any] = {
            "name": name,
            "image_source": image_source,
            "converter": dict(converter),
            "sources": [dict(source) for source in sources],
            "expected": dict(expected or {}),
            "parents": list(parents),
            "origin": origin,
            "run_id": run_id,
        }
        self._origin, self._run_id = origin, run_id
        self._required = dict(source_records or {})
        self._details = {split: dict(content) for split, content in (details or {}).items()}
        self._next_image = self._next_ann = 1
        self._reasons: Counter[str] = Counter()
        self._splits: dict[str, SplitFiles] = {}
        self._buffer: list[Record] = []
        self._buffer_split = ""
        self._folder = NewFolder(Path(out))
        for split in self._required:
            self._files(split)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if error is None:
                self._finish()
                done = True
        finally:
            if not done:
                for files in self._splits.values():
                    files.abandon()
                self._folder.discard()

    def write(self, split: str, record: Record) -> None:
        """Append one record to ``split``.

        Raises:
            LayoutError: the record breaks a rule of the layout.
        """
        if split != self._buffer_split or len(self._buffer) >= _BUFFERED_RECORDS:
            self._flush()
        self._buffer_split = split
        self._buffer.append(record)

    def write_batch(self, split: str, chunk: Chunk) -> None:
        """Append records that were encoded elsewhere (``partseg.layout.encode``)."""
        self._flush()
        self._append(split, chunk)

    @property
    def objects(self) -> int:
        """Object annotations written so far."""
        return sum(files.objects for files in self._splits.values())

    @property
    def parts(self) -> int:
        """Part annotations written so far."""
        return sum(files.parts for files in self._splits.values())

    def _files(self, split: str) -> SplitFiles:
        if split not in self._splits:
            if not split or not all(c.isalnum() or c in "-_." for c in split) or split.startswith("."):
                raise LayoutError(f"{split!r} cannot name a split", fix="use letters, digits, - and _")
            self._splits[split] = SplitFiles(self._folder.path, split)
        return self._splits[split]

    def _flush(self) -> None:
        if self._buffer:
            records, self._buffer = self._buffer, []
            self._append(self._buffer_split, encode(records))

    def _append(self, split: str, chunk: Chunk) -> None:
        self._check(split, chunk)
        files = self._files(split)
        images = _shifted(chunk.images, image_id=self._next_image, ann_offset=files.annotations.rows)
        annotations = _shifted(
            chunk.annotations,
            ann_id=self._next_ann,
            image_id=self._next_image,
            parent_id=self._next_ann,
        )
        files.annotations.append(_with_origin(annotations, self._origin, self._run_id))
        files.images.append(images)
        files.findings.append(chunk.findings)
        files.add_polygons(_shifted(chunk.polygons, ann_id=self._next_ann))
        files.add_panoptic(_shifted(chunk.panoptic, image_id=self._next_image))
        self._next_image += chunk.images.num_rows
        self._next_ann += chunk.annotations.num_rows
        files.records += chunk.records
        files.dropped += chunk.dropped
        category_ids = chunk.annotations["category_id"].to_numpy(zero_copy_only=False)
        files.objects += int(np.isin(category_ids, self._objects).sum())
        files.parts += int(np.isin(category_ids, self._parts).sum())
        self._reasons.update(chunk.findings["reason"].to_pylist())

    def _check(self, split: str, chunk: Chunk) -> None:
        """The rules a converter can break without noticing."""
        boxes = chunk.annotations["bbox"].flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
        sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
        known = np.isin(chunk.annotations["category_id"].to_numpy(zero_copy_only=False), self._ids)
        for fine, what in (
            (sound, "a box that is not finite or has a negative size"),
            (known, "an unknown category"),
        ):
            if not fine.all():
                row = int(np.flatnonzero(~fine)[0])
                image = chunk.annotations["image_id"][row].as_py()
                category = chunk.annotations["category_id"][row]
                raise LayoutError(
                    f"annotation has {what}: category {category}, box {boxes[row]}",
                    where=f"split {split}, record {chunk.images['source_key'][image]}",
                )
        labels = [
            chunk.images[f"{which}_category_ids"].flatten() for which in ("pos", "neg", "not_exhaustive")
        ]
        for values in labels:
            if not np.isin(values.to_numpy(zero_copy_only=False), self._ids).all():
                raise LayoutError("an image-level label is not in the category table", where=f"split {split}")
        pixels = _pixels(chunk.images)[chunk.panoptic["image_id"].to_numpy()]
        if not np.array_equal(_list_sums(chunk.panoptic["run_lengths"]), pixels):
            raise LayoutError("a panoptic map does not have the size of its image", where=f"split {split}")
        if chunk.images.num_rows + chunk.dropped != chunk.records:
            raise LayoutError("images and dropped records do not add up", where=f"split {split}")

    def _finish(self) -> None:
        self._flush()
        if not self._splits:
            raise LayoutError("a dataset needs at least one split", where=self._folder.out)
        root = self._folder.path
        table = TableFile(root, "categories.parquet", CATEGORIES)
        table.append(encode_categories(self._categories))
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            reader=READER,
            categories=table.close(),
            splits={name: self._split_entry(name, files) for name, files in sorted(self._splits.items())},
            findings=dict(sorted(self._reasons.items())),
            **self._head,
        )
        write_file(root / MANIFEST, manifest.to_bytes())
        self._folder.commit()

    def _split_entry(self, name: str, files: SplitFiles) -> SplitEntry:
        required = self._required.get(name, files.records)
        if not files.images.rows + files.dropped == files.records == required:
            raise LayoutError(
                f"{required} source records, but {files.images.rows} images and {files.dropped} dropped",
                where=f"split {name}",
            )
        return SplitEntry(
            images=files.images.close(),
            annotations=files.annotations.close(),
            findings=files.findings.close(),
            polygons=files.polygons.close() if files.polygons else None,
            panoptic=files.panoptic.close() if files.panoptic else None,
            details=self._details.get(name, {}),
            source_records=files.records,
            dropped=files.dropped,
            objects=files.objects,
            parts=files.parts,
        )


def _pixels(images: pa.RecordBatch) -> NDArray[np.int64]:
    return np.asarray(images["height"].to_numpy().astype(np.int64) * images["width"].to_numpy())


def _list_sums(lists: pa.LargeListArray) -> NDArray[np.int64]:
    """The sum of each list [N]."""
    ends = np.concatenate(([0], np.cumsum(lists.values.to_numpy(), dtype=np.int64)))
    offsets = lists.offsets.to_numpy()
    return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]])


def _shifted(batch: pa.RecordBatch, **offsets: int) -> pa.RecordBatch:
    """The batch with a number added to some of its columns; nulls stay null."""
    for name, offset in offsets.items():
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, batch.schema.field(index), pc.add(batch.column(index), offset))
    return batch


def _with_origin(batch: pa.RecordBatch, origin: str, run_id: str | None) -> pa.RecordBatch:
    columns = {name: batch[name] for name in batch.schema.names}
    zeros = pa.array(np.zeros(batch.num_rows, np.int32))
    columns["origin"] = pa.DictionaryArray.from_arrays(zeros, [origin])
    field = ANNOTATIONS.field("run_id")
    columns["run_id"] = (
        pa.nulls(batch.num_rows, field.type)
        if run_id is None
        else pa.DictionaryArray.from_arrays(zeros, [run_id])
    )
    return pa.record_batch([columns[name] for name in ANNOTATIONS.names], schema=ANNOTATIONS)


def _check_categories(categories: Sequence[Category]) -> None:
    ids = [category.category_id for category in categories]
    names = [category.name for category in categories]
    objects = {category.category_id for category in categories if category.kind == "object"}
    for what, values in (("id", ids), ("name", names)):
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise LayoutError(f"category {what} {repeated[0]!r} is used twice")
    for category in categories:
        if category.category_id < 1:
            raise LayoutError(f"category {category.name!r} has id {category.category_id}; ids start at 1")
        if category.parent_id is not None and category.parent_id not in objects:
            raise LayoutError(
                f"category {category.name!r} has parent {category.parent_id}, which is no object"
            )
