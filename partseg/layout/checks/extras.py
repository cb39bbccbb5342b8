"""Rules about outlines and panoptic maps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from partseg.layout.checks.columns import Columns
from partseg.layout.checks.found import Found, Rule
from partseg.layout.runs import Ints

STRAY_OUTLINE = Rule("polygons-stray", "error", "outlines do not belong to one annotation each, in order")
OUTLINE = Rule("polygon-malformed", "warning", "an outline has fewer than three points, or half a point")
STRAY_MAP = Rule("panoptic-stray", "error", "panoptic maps do not belong to one image each, in order")
MAP_SIZE = Rule("panoptic-size", "error", "a panoptic map does not have the size of its image")
# A map keeps every pixel of its source, and some releases have ids that their own tables do not know.
UNKNOWN_ID = Rule(
    "panoptic-id-unknown", "warning", "pixels of a panoptic map belong to no annotation of the image"
)
MAP_AREA = Rule(
    "panoptic-area", "warning", "an annotation has another area than its pixels in the panoptic map"
)
NO_MAP = Rule("panoptic-missing", "warning", "an image has no panoptic map, others of its split have one")
RULES = (STRAY_OUTLINE, OUTLINE, STRAY_MAP, MAP_SIZE, UNKNOWN_ID, MAP_AREA, NO_MAP)

_BATCH_MAPS = 256
_BATCH_OUTLINES = 16384
_ID_BITS = 32
_ID_MASK = (1 << _ID_BITS) - 1
_AREA_PIXELS = 0.5  # areas of panoptic sources are counted pixels


def check_polygons(columns: Columns, found: Found) -> None:
    """Outlines belong to annotations and are closed shapes."""
    entry = columns.split.entry.polygons
    if entry is None:
        return
    last = 0
    with pq.ParquetFile(columns.split.folder / entry.path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH_OUTLINES):
            ids = batch["ann_id"].to_numpy()
            rows = np.minimum(np.searchsorted(columns.ann_ids, ids), max(len(columns.ann_ids) - 1, 0))
            stray = (columns.ann_ids[rows] != ids) if len(columns.ann_ids) else np.ones(len(ids), np.bool_)
            stray |= np.diff(ids, prepend=last) <= 0
            texts = ["no annotation for these outlines, or out of order"] * int(stray.sum())
            found.add(STRAY_OUTLINE, texts, split=columns.name, ann_ids=ids[stray])
            last = int(ids[-1]) if len(ids) else last
            rings = batch["polygons"].flatten()
            numbers = pc.fill_null(pc.list_value_length(rings), 0).to_numpy()
            owner = pc.list_parent_indices(batch["polygons"]).to_numpy()
            wrong = np.flatnonzero((numbers < 6) | (numbers % 2 == 1))
            texts = [f"an outline has {numbers[ring]} numbers" for ring in wrong]
            at = owner[wrong]
            images = columns.ann_images[rows[at]] if len(columns.ann_ids) else None
            found.add(OUTLINE, texts, split=columns.name, image_ids=images, ann_ids=ids[at])


def check_panoptic(columns: Columns, linked: bool, found: Found) -> None:
    """Every map covers its image with the ids of its annotations. Ids and row ranges must be sound."""
    entry = columns.split.entry.panoptic
    if entry is None:
        return
    parents = columns.parent_rows() if linked else np.full(len(columns.ann_ids), -1)
    source_ids = pc.fill_null(columns.annotations["source_id"], -1).to_numpy()
    mapped = np.zeros(len(columns.image_ids), np.bool_)
    last = 0
    with pq.ParquetFile(columns.split.folder / entry.path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH_MAPS):
            ids = batch["image_id"].to_numpy()
            images = np.minimum(np.searchsorted(columns.image_ids, ids), max(len(columns.image_ids) - 1, 0))
            known = (
                columns.image_ids[images] == ids if len(columns.image_ids) else np.zeros(len(ids), np.bool_)
            )
            stray = ~known | (np.diff(ids, prepend=last) <= 0)
            texts = [f"no image {image} for this map, or out of order" for image in ids[stray]]
            found.add(STRAY_MAP, texts, split=columns.name, image_ids=ids[stray])
            last = int(ids[-1]) if len(ids) else last
            mapped[images[~stray]] = True
            _check_maps(columns, images[~stray], batch.filter(pa.array(~stray)), source_ids, parents, found)
    bare = columns.image_ids[~mapped]
    found.add(NO_MAP, ["it has no panoptic map"] * len(bare), split=columns.name, image_ids=bare)


def _check_maps(
    columns: Columns, images: Ints, batch: pa.RecordBatch, source_ids: Ints, parents: Ints, found: Found
) -> None:
    """Some maps, given the rows of their images."""
    if not len(images):
        return
    name = columns.name
    lengths = batch["run_lengths"].flatten().to_numpy().astype(np.int64)
    labels = batch["run_ids"].flatten().to_numpy().astype(np.int64)
    place = pc.list_parent_indices(batch["run_lengths"]).to_numpy()
    runs = [pc.list_value_length(batch[column]).to_numpy() for column in ("run_lengths", "run_ids")]
    covered = np.bincount(place, weights=lengths, minlength=len(images)).astype(np.int64)
    pixels = (columns.heights * columns.widths)[images]
    wrong = (covered != pixels) | (runs[0] != runs[1])
    texts = [f"its map covers {covered[i]} of {pixels[i]} pixels" for i in np.flatnonzero(wrong)]
    found.add(MAP_SIZE, texts, split=name, image_ids=columns.image_ids[images[wrong]])
    if (runs[0] != runs[1]).any():
        return
    rows = np.concatenate(
        [np.arange(columns.offsets[i], columns.offsets[i] + columns.counts[i]) for i in images]
    )
    rows = rows[source_ids[rows] >= 0]
    keys = _keys(np.searchsorted(columns.image_ids, columns.ann_images[rows]), source_ids[rows])
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    wanted = _keys(images[place], labels)
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    hit = (keys[at] == wanted) if len(keys) else np.zeros(len(wanted), np.bool_)
    unknown = np.unique(wanted[~hit & (labels != 0)])
    texts = [f"id {key & _ID_MASK} of its map is no annotation" for key in unknown]
    found.add(UNKNOWN_ID, texts, split=name, image_ids=columns.image_ids[unknown >> _ID_BITS])
    own = np.bincount(at[hit], lengths[hit], minlength=len(rows)).astype(np.float64)
    _check_areas(columns, rows, own, parents[rows], found)


def _keys(images: Ints, ids: Ints) -> Ints:
    return np.asarray((images << _ID_BITS) + (ids & _ID_MASK))


def _check_areas(columns: Columns, rows: Ints, own: NDArray[np.float64], parents: Ints, found: Found) -> None:
    """Pixels ``own`` [K] of annotations ``rows`` [K]; those of its parts belong to an object as well."""
    place = {row: index for index, row in enumerate(rows.tolist())}
    pixels = own.copy()
    for part in np.flatnonzero(parents >= 0).tolist():
        if (parent := place.get(int(parents[part]))) is not None:
            pixels[parent] += own[part]
    gap = np.abs(pixels - columns.areas[rows])
    wrong = ~(gap <= _AREA_PIXELS)
    stated = columns.areas[rows[wrong]]
    texts = [
        f"its area is {a:.0f} px, the map has {b:.0f}" for a, b in zip(stated, pixels[wrong], strict=True)
    ]
    found.add(
        MAP_AREA,
        texts,
        split=columns.name,
        image_ids=columns.ann_images[rows[wrong]],
        ann_ids=columns.ann_ids[rows[wrong]],
        values=gap[wrong],
    )
