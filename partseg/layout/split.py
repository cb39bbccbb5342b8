"""One split of a dataset: its images and annotations, read from memory-mapped columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from partseg.errors import LayoutError
from partseg.layout.cache import open_annotations, open_images, open_panoptic, open_polygons
from partseg.layout.columns import Bytes, Lists, Polygons, view
from partseg.layout.images import read_rgb
from partseg.layout.manifest import Manifest, SplitEntry, read_manifest
from partseg.layout.records import PanopticMap
from partseg.layout.runs import Runs
from partseg.layout.schema import TABLES, read_parquet

TableKind = Literal["images", "annotations", "findings", "polygons", "panoptic"]


@dataclass(slots=True, kw_only=True, eq=False)  # frozen would take a third of the time of reading one
class ImageRecord:
    """One image with its N annotations, every object before its parts. The arrays are read-only.

    Attributes:
        pos_category_ids: int32 [P], image-level labels.
        neg_category_ids: int32 [Q], categories checked and absent (LVIS).
        not_exhaustive_category_ids: int32 [R], categories of which not all are annotated (LVIS).
        ann_ids: int64 [N].
        category_ids: int32 [N].
        parent_rows: int64 [N], row of the part's object in this record, -1 for objects.
        boxes_xywh: float64 [N, 4], pixels.
        areas: float64 [N], pixels.
        rles: COCO compressed counts; None where there is only a box.
        is_crowd: bool [N]; so is ``is_ignore``.
        scores: float32 [N], nan where a person made the annotation.
        origin: "human" or the kind of stage that made the annotation, [N].
    """

    image_id: int
    file_name: str
    height: int
    width: int
    source_key: str
    pos_category_ids: NDArray[np.int32]
    neg_category_ids: NDArray[np.int32]
    not_exhaustive_category_ids: NDArray[np.int32]
    ann_ids: NDArray[np.int64]
    category_ids: NDArray[np.int32]
    parent_rows: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    rles: list[bytes | None]
    is_crowd: NDArray[np.bool_]
    is_ignore: NDArray[np.bool_]
    scores: NDArray[np.float32]
    origin: list[str]


class Split:
    """One split: a sequence of :class:`ImageRecord`.

    It pickles only its path, so worker processes share the memory-mapped pages. Made by
    :meth:`partseg.layout.Dataset.split`.
    """

    def __init__(self, folder: Path, name: str, image_root: Path | None, cache: Path) -> None:
        self.folder, self.name, self.image_root, self.cache = folder, name, image_root, cache

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self.folder, self.name, self.image_root, self.cache)

    def __repr__(self) -> str:
        return f"Split({str(self.folder)!r}, {self.name!r})"

    def __len__(self) -> int:
        return int(self._images.num_rows)

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ImageRecord:
        """The record of image ``index`` (0-based, in the order of the source)."""
        count = self._images.num_rows
        if not -count <= index < count:
            raise IndexError(f"image {index} of {count}")
        index %= count
        image, columns = self._image_columns, self._columns
        start = image["ann_offset"][index]
        stop = start + image["ann_count"][index]
        rows = slice(start, stop)
        positive, negative, not_exhaustive = self._labels
        return ImageRecord(
            image_id=image["image_id"][index],
            file_name=self._file_names.text(index),
            height=image["height"][index],
            width=image["width"][index],
            source_key=self._source_keys.text(index),
            pos_category_ids=positive[index],
            neg_category_ids=negative[index],
            not_exhaustive_category_ids=not_exhaustive[index],
            ann_ids=columns["ann_id"][rows],
            category_ids=columns["category_id"][rows],
            parent_rows=columns["parent_row"][rows],
            boxes_xywh=columns["bbox"][rows],
            areas=columns["area"][rows],
            rles=self._rles.between(start, stop),
            is_crowd=columns["is_crowd"][rows],
            is_ignore=columns["is_ignore"][rows],
            scores=columns["score"][rows],
            origin=self._origin(rows),
        )

    def image_path(self, index: int) -> Path:
        """The image file.

        Raises:
            LayoutError: the dataset was opened without ``image_root``.
        """
        if self.image_root is None:
            source = self._manifest.image_source
            raise LayoutError(
                "the folder of the images is not known",
                where=self.folder,
                fix=f"open the dataset with image_root set to the raw folder of {source}",
            )
        return self.image_root / str(self._file_names.text(index))

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB, its EXIF orientation applied.

        Raises:
            SourceError: the file is missing or damaged.
            LayoutError: its size is not the one recorded, so its masks would not fit.
        """
        path = self.image_path(index)
        image = read_rgb(path)
        size = (self._image_columns["height"][index], self._image_columns["width"][index])
        if image.shape[:2] != size:
            raise LayoutError(
                "the image is {}x{}, its record says {}x{} (height x width)".format(*image.shape[:2], *size),
                where=path,
                fix="use the images that the dataset was converted from",
            )
        return image

    def polygons(self, index: int) -> list[list[NDArray[np.float64]] | None]:
        """The outlines of image ``index``: for each annotation x, y, x, y, ... per ring, or None.

        A split whose source has no outlines has None for all of them.
        """
        start = self._image_columns["ann_offset"][index]
        ann_ids = self._columns["ann_id"][start : start + self._image_columns["ann_count"][index]]
        return [None] * len(ann_ids) if self.entry.polygons is None else self._polygons.of(ann_ids)

    def panoptic(self, index: int) -> PanopticMap:
        """The panoptic map of image ``index``.

        Raises:
            LayoutError: the image has none.
        """
        image_id = self._image_columns["image_id"][index]
        ids = self._panoptic_ids
        row = int(np.searchsorted(ids, image_id))
        if row >= len(ids) or ids[row] != image_id:
            raise LayoutError(f"image {index} has no panoptic map", where=f"{self.folder}, split {self.name}")
        image, table = self._image_columns, self._panoptic_table
        return PanopticMap(
            file_name=table["file_name"][row].as_py(),
            runs=Runs(
                height=image["height"][index],
                width=image["width"][index],
                lengths=view(table["run_lengths"][row].values).astype(np.int64),
                labels=view(table["run_ids"][row].values).astype(np.int64),
            ),
        )

    def batch(self, kind: Literal["images", "annotations"]) -> pa.RecordBatch:
        """The memory-mapped columns of all images or annotations; see :mod:`partseg.layout.cache`."""
        return self._images if kind == "images" else self._annotations

    def table(self, kind: TableKind) -> Any:
        """A whole table of the split as ``pyarrow.Table``.

        Raises:
            LayoutError: the split has no such table (only some sources have polygons or panoptic maps).
        """
        entry, schema = getattr(self.entry, kind), TABLES[kind]
        if entry is None:
            raise LayoutError(f"there is no {kind} table", where=f"{self.folder}, split {self.name}")
        return read_parquet(self.folder / entry.path, schema)

    def findings(self) -> Any:
        """What was dropped or repaired: source_key, reason, message, image_dropped (``pyarrow.Table``)."""
        return self.table("findings")

    @property
    def entry(self) -> SplitEntry:
        """Files and counts of the split as the manifest states them."""
        return self._manifest.splits[self.name]

    @cached_property
    def _manifest(self) -> Manifest:
        return read_manifest(self.folder)

    @cached_property
    def _images(self) -> pa.RecordBatch:
        return open_images(self.folder, self.entry.images, self.cache)

    @cached_property
    def _annotations(self) -> pa.RecordBatch:
        return open_annotations(self.folder, self.entry.annotations, self.cache)

    def _origin(self, rows: slice) -> list[str]:
        names = self._origins
        if len(names) == 1:
            return [names[0]] * (rows.stop - rows.start)
        return [names[code] for code in self._columns["origin"][rows].tolist()]

    @cached_property
    def _rles(self) -> Bytes:
        return Bytes(self._annotations["rle"])

    @cached_property
    def _labels(self) -> tuple[Lists, Lists, Lists]:
        positive, negative, not_exhaustive = (
            Lists(self._images[name])
            for name in ("pos_category_ids", "neg_category_ids", "not_exhaustive_category_ids")
        )
        return positive, negative, not_exhaustive

    @cached_property
    def _polygons(self) -> Polygons:
        if self.entry.polygons is None:
            raise LayoutError("there are no polygons", where=f"{self.folder}, split {self.name}")
        return Polygons(open_polygons(self.folder, self.entry.polygons, self.cache))

    @cached_property
    def _panoptic_table(self) -> Any:
        if self.entry.panoptic is None:
            raise LayoutError("there are no panoptic maps", where=f"{self.folder}, split {self.name}")
        return open_panoptic(self.folder, self.entry.panoptic, self.cache)

    @cached_property
    def _panoptic_ids(self) -> NDArray[np.int64]:
        return view(self._panoptic_table["image_id"].combine_chunks())

    @cached_property
    def _file_names(self) -> Bytes:
        return Bytes(self._images["file_name"])

    @cached_property
    def _source_keys(self) -> Bytes:
        return Bytes(self._images["source_key"])

    @cached_property
    def _image_columns(self) -> dict[str, memoryview]:
        """Views of the fixed-width columns; one number costs a third of what it does from an array."""
        names = ("image_id", "height", "width", "ann_offset", "ann_count")
        return {name: view(self._images[name]).data for name in names}

    @cached_property
    def _origins(self) -> list[str]:
        return list(self._annotations["origin"].dictionary.to_pylist())

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        """Zero-copy views of the fixed-width columns."""
        batch = self._annotations
        columns = {
            name: view(batch[name])
            for name in ("ann_id", "category_id", "parent_row", "area", "is_crowd", "is_ignore", "score")
        }
        columns["is_crowd"] = columns["is_crowd"].view(np.bool_)
        columns["is_ignore"] = columns["is_ignore"].view(np.bool_)
        columns["bbox"] = view(batch["bbox"].flatten()).reshape(-1, 4)
        columns["origin"] = view(batch["origin"].indices)
        return columns
