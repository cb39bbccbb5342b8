"""Panoptic maps out of the common layout: COCO panoptic, and panoptic-parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from partseg.errors import LayoutError
from partseg.layout.files import new_folder
from partseg.layout.label_images import write_colour_ids, write_int32_tiff
from partseg.layout.reader import Dataset
from partseg.layout.records import Category
from partseg.layout.runs import relabel_runs
from partseg.layout.segments import ANNOTATION, ImageSegments, Segment, image_segments
from partseg.layout.uids import unpack_uids
from partseg.progress import Progress, Silent

PANOPTIC_IDS = "panoptic_ids"
"""Key of a split's details that says what the ids of its maps are: "coco" or "panoptic-parts"."""


def write_coco_panoptic(
    dataset: Dataset, split: str, out: Path, *, name: str | None = None, report: Progress | None = None
) -> dict[str, int]:
    """Write one split as COCO panoptic: ``out/<name>.json`` and ``out/<name>/*.png``.

    What was converted from COCO panoptic comes out again: equal JSON values in the same order, equal pixels.
    From a panoptic-parts dataset come its objects, crowds and stuff; parts belong to their object.

    Args:
        dataset: one with panoptic maps.
        split: name of the split.
        out: new folder; it appears at the end, or not at all.
        name: of the JSON file and the folder; ``panoptic_<split>`` by default.
        report: told after every image.

    Returns:
        Counts: categories, images, segments.

    Raises:
        LayoutError: no such split, it has no panoptic maps, or ``out`` is taken.
    """
    report = report or Silent()
    name = name or f"panoptic_{split}"
    source, id_of = dataset.split(split), source_ids(dataset)
    kind = source.entry.details.get(PANOPTIC_IDS)
    images: list[bytes] = []
    annotations: list[tuple[int, bytes]] = []
    segments = 0
    with new_folder(out) as folder:
        for item in image_segments(source):
            annotation = _annotation(item, id_of)
            runs = source.panoptic(item.index).runs
            if kind == "panoptic-parts":
                runs = relabel_runs(runs, unpack_uids(runs.labels).sids_iids)
            path = folder / name / annotation["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_colour_ids(path, runs)
            images.append(orjson.dumps(image_row(item)))
            annotations.append((item.row, orjson.dumps(annotation)))
            segments += len(item.segments)
            report.update(len(images), len(source), split)
        with (folder / f"{name}.json").open("wb") as stream:
            stream.write(orjson.dumps(top_level(dataset, split))[:-1])
            lists = {
                b"images": images,
                b"annotations": [text for _, text in sorted(annotations, key=lambda pair: pair[0])],
                b"categories": [orjson.dumps(item) for item in source_categories(dataset)],
            }
            for key, texts in lists.items():
                stream.write(b'%s"%s":[%s]' % (b"," if stream.tell() > 1 else b"", key, b",".join(texts)))
            stream.write(b"}")
    return {"categories": len(dataset.categories), "images": len(images), "segments": segments}


def write_panoptic_parts(
    dataset: Dataset, split: str, out: Path, *, report: Progress | None = None
) -> dict[str, int]:
    """Write one split as panoptic-parts: int32 TIFF files of uids, named below ``out`` as in the source.

    The pixels are those that were converted, whether they have a category or not.

    Args:
        dataset: one that was converted from panoptic-parts maps.
        split: name of the split.
        out: new folder; it appears at the end, or not at all.
        report: told after every image.

    Returns:
        Counts: images.

    Raises:
        LayoutError: no such split, its maps hold no uids, or ``out`` is taken.
    """
    report = report or Silent()
    source = dataset.split(split)
    require_uids(dataset, split)
    with new_folder(out) as folder:
        for index in range(len(source)):
            item = source.panoptic(index)
            path = folder / item.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_int32_tiff(path, item.runs)
            report.update(index + 1, len(source), split)
    return {"images": len(source)}


def require_uids(dataset: Dataset, split: str) -> None:
    """Have a split whose maps hold panoptic-parts uids.

    Raises:
        LayoutError: it does not.
    """
    if dataset.split(split).entry.details.get(PANOPTIC_IDS) != "panoptic-parts":
        raise LayoutError(
            f"split {split} has no panoptic-parts maps",
            where=dataset.folder,
            fix="convert a panoptic-parts dataset, such as pascal_pp or cityscapes_pp",
        )


def source_categories(dataset: Dataset) -> list[dict[str, Any]]:
    """Objects and stuff as COCO panoptic lists its categories, with the source's ids."""
    return [_category(item) for item in dataset.categories if item.kind != "part"]


def top_level(dataset: Dataset, split: str) -> dict[str, Any]:
    """What the source's JSON has beside images, annotations and categories."""
    return dict(dataset.split(split).entry.details.get("top_level", {}))


def source_ids(dataset: Dataset) -> dict[int, int]:
    """The source's id of every category, by the layout's."""
    return {
        item.category_id: item.category_id if item.source_id is None else item.source_id
        for item in dataset.categories
    }


def _category(item: Category) -> dict[str, Any]:
    extra = dict(item.extra or {})
    absent = extra.pop("absent", [])
    row: dict[str, Any] = {"id": item.category_id if item.source_id is None else item.source_id}
    row["name"] = item.name
    if item.supercategory is not None:
        row["supercategory"] = item.supercategory
    row["isthing"] = int(item.is_thing)
    if item.colour is not None:
        row["color"] = list(item.colour.to_bytes(3, "big"))
    row.update(extra)
    return {key: value for key, value in row.items() if key not in absent}


def image_row(item: ImageSegments) -> dict[str, Any]:
    """An image as COCO's JSON has it."""
    extra = {key: value for key, value in item.extra.items() if key != ANNOTATION}
    row = {"id": item.key, "file_name": PurePosixPath(item.file_name).name}
    return {**row, "height": item.height, "width": item.width, **extra}


def _annotation(item: ImageSegments, id_of: Mapping[int, int]) -> dict[str, Any]:
    row = {
        "segments_info": [segment_row(segment, id_of) for segment in item.segments],
        "file_name": f"{item.stem}.png",
        "image_id": item.key,
    }
    unusual = {key: value for key, value in item.extra.get(ANNOTATION, {}).items() if key != "row"}
    return {**row, **unusual}


def segment_row(segment: Segment, id_of: Mapping[int, int]) -> dict[str, Any]:
    """A segment as ``segments_info`` has it; ``id_of`` gives the source's category ids."""
    extra = dict(segment.extra)
    absent = extra.pop("absent", [])
    row = {
        "id": segment.source_id,
        "category_id": id_of[segment.category_id],
        "area": segment.area,
        "bbox": segment.box_xywh,
        "iscrowd": int(segment.is_crowd),
        **extra,
    }
    return {key: value for key, value in row.items() if key not in absent} if absent else row
