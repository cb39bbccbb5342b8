"""The common layout: one form for every dataset, on disk and in memory.

Write with :class:`DatasetWriter`, read with :meth:`Dataset.open`; :mod:`partseg.layout.runs` holds the
run-length masks, :mod:`partseg.layout.export.coco` the COCO export, :mod:`partseg.layout.checks` the rules.
"""

from partseg.layout.batches import Chunk, encode
from partseg.layout.images import image_size, read_rgb
from partseg.layout.manifest import Manifest
from partseg.layout.reader import Dataset
from partseg.layout.records import AnnotationRow, Category, Finding, ImageRow, PanopticMap, Record
from partseg.layout.runs import (
    Runs,
    Segments,
    decode_counts,
    encode_counts,
    label_map_to_runs,
    mask_to_rle,
    rle_area,
    rle_bbox,
    rle_decode_many,
    rle_to_mask,
    runs_to_segments,
)
from partseg.layout.schema import FORMAT_VERSION
from partseg.layout.split import ImageRecord, Split
from partseg.layout.writer import DatasetWriter

__all__ = [
    "FORMAT_VERSION",
    "AnnotationRow",
    "Category",
    "Chunk",
    "Dataset",
    "DatasetWriter",
    "Finding",
    "ImageRecord",
    "ImageRow",
    "Manifest",
    "PanopticMap",
    "Record",
    "Runs",
    "Segments",
    "Split",
    "decode_counts",
    "encode",
    "encode_counts",
    "image_size",
    "label_map_to_runs",
    "mask_to_rle",
    "read_rgb",
    "rle_area",
    "rle_bbox",
    "rle_decode_many",
    "rle_to_mask",
    "runs_to_segments",
]
