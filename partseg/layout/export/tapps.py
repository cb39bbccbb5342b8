"""The files that TAPPS' ``datasets/prepare_*.py`` write, out of the common layout.

Kept as they are, by name:

- *rest as part*: pixels of an instance without a part label are "ignore" (255) in a part map, but for the
  classes whose table gives them a part of their own (57 parts: bicycle, motorbike).
- *folded before ignored*: which pixels have no part is decided after folding for Pascal-PP and before it for
  Cityscapes-PP. With the published tables both come to the same.
- *explicit part 0*: on Cityscapes a uid whose part is 0 has a part label, so it is 0 and not 255.
- *fixed size*: ``images_*.json`` of Cityscapes says 2048 x 1024 whatever the files are, and names
  ``*_gtFine_panoptic.png``.
- *png for jpg*: the images of Pascal-PP's JSON files are named ``.png``, as their maps.
- *unknown is background*: pixels of a part that no table knows are 0. TAPPS stops with an error there if the
  class is Pascal's, or the number is above all others.

Images are listed in the order of the dataset; TAPPS lists them as the file system does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from partseg.errors import LayoutError, SourceError
from partseg.layout.export.panoptic import require_uids
from partseg.layout.files import new_folder
from partseg.layout.label_images import runs_to_rows, write_colour_ids, write_png
from partseg.layout.reader import Dataset
from partseg.layout.runs import Runs, relabel_runs
from partseg.layout.segments import ImageSegments, image_segments
from partseg.layout.uids import Uids, unpack_uids
from partseg.progress import Progress, Silent

Photos = Literal["copy", "link", "none"]
Values = NDArray[np.uint8]

_IGNORE = 255
_MAP = "_gtFinePanopticParts"


def write_tapps(
    dataset: Dataset,
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    photos: Photos = "copy",
    report: Progress | None = None,
) -> dict[str, int]:
    """Write what TAPPS prepares: below ``out`` lies what it puts below ``pascal`` or ``cityscapes``.

    A Pascal-PP dataset with 57 parts gives the files of ``prepare_pascal_pp.py``, one with 107 those of
    ``prepare_pascal_pp_107.py`` (``parts_107`` alone), Cityscapes-PP those of ``prepare_cityscapes_pp.py``.

    Args:
        dataset: converted from ``pascal_pp`` or ``cityscapes_pp``.
        out: new folder; it appears at the end, or not at all.
        splits: names of splits; all by default.
        photos: whether the photos of Pascal-PP are copied, linked to, or left out.
        report: told after every image.

    Returns:
        Counts: images, segments.

    Raises:
        LayoutError: the dataset is another one, ``out`` is taken, an instance is of a stuff class, or photos
            are wanted and the dataset was opened without ``image_root``.
        SourceError: a photo is missing.
    """
    report = report or Silent()
    names = dataset.splits if splits is None else tuple(splits)
    for split in names:
        require_uids(dataset, split)
    tables = _tables(dataset)
    total = sum(len(dataset.split(split)) for split in names)
    counts = {"images": 0, "segments": 0}
    with new_folder(out) as folder:
        for split in names:
            source = dataset.split(split)
            images, annotations = [], []
            for item in image_segments(source):
                runs = source.panoptic(item.index).runs
                ids = unpack_uids(runs.labels)
                _write(folder / _part_file(tables, split, item), runs, _part_values(ids, tables))
                images.append(_image(item, tables))
                if tables.kind == "pascal_57":
                    annotation = _annotation(item, tables, dataset.folder)
                    _write_maps(folder, split, item.stem, runs, ids, tables)
                    if photos != "none":
                        _take_photo(source.image_path(item.index), folder / f"images/{split}", photos)
                    annotations.append(annotation)
                    counts["segments"] += len(annotation["segments_info"])
                counts["images"] += 1
                report.update(counts["images"], total, split)
            if tables.kind != "pascal_107":
                (folder / f"images_{split}.json").write_bytes(orjson.dumps({"images": images}))
            if tables.kind == "pascal_57":
                content = {"annotations": annotations, "images": images, "categories": tables.categories}
                (folder / f"panoptic/panoptic_{split}.json").write_bytes(orjson.dumps(content))
    return counts


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the numbers of a dataset mean to TAPPS.

    Attributes:
        flat: uint8 [10000], number in flat part maps by ``sid * 100 + pid``, or by ``sid``; 0 for none.
        evaluated: bool [100], by sid; so are the next two.
        things: classes with instances.
        with_parts: classes whose parts are evaluated.
        categories: the evaluated classes as TAPPS lists them.
    """

    kind: Literal["pascal_57", "pascal_107", "cityscapes"]
    flat: Values
    evaluated: NDArray[np.bool_]
    things: NDArray[np.bool_]
    with_parts: NDArray[np.bool_]
    categories: list[dict[str, Any]]


def _tables(dataset: Dataset) -> _Tables:
    parts = [item for item in dataset.categories if item.kind == "part"]
    cityscapes = any("grouped_flat_id" in (item.extra or {}) for item in parts)
    if not cityscapes and len(parts) not in (57, 107):
        raise LayoutError(
            f"TAPPS prepares no dataset with {len(parts)} parts",
            where=dataset.folder,
            fix="convert cityscapes_pp, or pascal_pp with parts 57 or 107",
        )
    number = "grouped_flat_id" if cityscapes else "flat_id"
    flat = np.zeros(10_000, np.uint8)
    for part in parts:
        extra = part.extra or {}
        flat[extra["file_sid_pids"]] = extra[number]
    evaluated, things, with_parts = np.zeros((3, 100), np.bool_)
    categories = []
    for item in sorted(dataset.categories, key=lambda item: item.category_id):
        if item.kind == "part" or not item.extra:
            continue
        sid = item.category_id
        evaluated[sid], things[sid], with_parts[sid] = True, item.is_thing, item.extra["has_parts"]
        colour = list((item.colour or 0).to_bytes(3, "big"))
        categories.append({"id": sid, "isthing": int(item.is_thing), "color": colour, "name": item.name})
    return _Tables(
        "cityscapes" if cityscapes else "pascal_57" if len(parts) == 57 else "pascal_107",
        flat,
        evaluated,
        things,
        with_parts,
        categories,
    )


def _part_values(ids: Uids, tables: _Tables) -> Values:
    """The value of each run in a flat part map."""
    sids_pids = ids.sids_pids
    if tables.kind != "cityscapes":  # explicit part 0
        sids_pids = np.where(ids.pids == 0, ids.sids, sids_pids)
    values = tables.flat[sids_pids]
    crowd = tables.things[ids.sids] & (ids.iids < 0)
    unlabelled = (sids_pids < 100) & (values == 0)
    values[tables.with_parts[ids.sids] & (crowd | unlabelled)] = _IGNORE
    return values


def _write_maps(folder: Path, split: str, stem: str, runs: Runs, ids: Uids, tables: _Tables) -> None:
    """The panoptic and the semantic map of Pascal-PP."""
    evaluated = tables.evaluated[ids.sids]
    path = _ready(folder / f"panoptic/{split}/{stem}.png")
    write_colour_ids(path, relabel_runs(runs, np.where(evaluated, ids.sids_iids, 0)))
    values = np.where(evaluated, ids.sids, _IGNORE).astype(np.uint8)
    _write(folder / f"semantic/{split}/{stem}.png", runs, values)


def _annotation(item: ImageSegments, tables: _Tables, where: Path) -> dict[str, Any]:
    segments = []
    for segment in item.segments:
        sid, uid = segment.category_id, segment.source_id
        if not tables.evaluated[sid]:
            continue
        if uid > 99 and not tables.things[sid]:
            raise LayoutError(
                f"{uid} is an instance of the stuff class {sid}",
                where=f"{where}, image {item.key}",
                fix="TAPPS does not prepare such a map either: mend it or leave it out",
            )
        segments.append(
            {
                "id": uid,
                "category_id": sid,
                "area": segment.area,
                "bbox": segment.box_xywh,
                "iscrowd": int(segment.is_crowd),
            }
        )
    return {"file_name": f"{item.stem}.png", "image_id": item.key, "segments_info": segments}


def _image(item: ImageSegments, tables: _Tables) -> dict[str, Any]:
    if tables.kind == "cityscapes":  # fixed size
        return {"file_name": f"{item.key}_gtFine_panoptic.png", "id": item.key, "width": 2048, "height": 1024}
    return {"file_name": f"{item.stem}.png", "id": item.key, "height": item.height, "width": item.width}


def _part_file(tables: _Tables, split: str, item: ImageSegments) -> str:
    if tables.kind == "cityscapes":
        city = PurePosixPath(item.file_name).parent.name
        return f"gtFineParts/{split}/{city}/{item.key}{_MAP}.png"
    folder = "parts" if tables.kind == "pascal_57" else "parts_107"
    return f"{folder}/{split}/{item.stem}.png"


def _write(path: Path, runs: Runs, values: Values) -> None:
    write_png(_ready(path), runs_to_rows(runs, values))


def _ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _take_photo(photo: Path, folder: Path, photos: Photos) -> None:
    if not photo.is_file():
        raise SourceError("the photo is missing", where=photo, fix="check the folder of the raw data")
    target = _ready(folder / photo.name)
    if photos == "link":
        target.symlink_to(photo.absolute())
    else:
        shutil.copyfile(photo, target)
