"""What the panoptic-parts datasets share: one TIFF of uids per image, and a table of classes and parts.

A uid (:mod:`partseg.layout.uids`) names class, instance and part. Every instance of a thing becomes an
object, its parts become parts of that object, the pixels of a thing without an instance one crowd object, the
pixels of a stuff class one stuff segment. Nothing of the map is lost: all uids are kept as runs, whether they
have a category or not. Classes that no evaluation uses are marked as ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.photos import Images, photo_digest, photo_missing
from partseg.errors import SourceError
from partseg.layout import AnnotationRow, Category, Finding, ImageRow, Record
from partseg.layout.label_images import read_label_image
from partseg.layout.records import PanopticMap
from partseg.layout.runs import Runs, Segments, relabel_runs, runs_to_segments
from partseg.layout.uids import check_uids, unpack_uids


class PartsOptions(BaseModel):
    """Settings that both datasets have.

    Attributes:
        images: "hash" records every photo's sha256 and checks its size, "list" wants it to exist, "none" does
            not look.
        allow_missing: a missing photo becomes a finding instead of an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Images = "list"
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one image, relative to the raw folder."""

    uids: str
    photo: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Classes:
    """What the uids mean.

    Attributes:
        names: name of every class.
        things: classes with instances.
        evaluated: classes that the benchmark scores.
        parts: category of every ``sid * 100 + pid`` that has one.
    """

    names: Mapping[int, str]
    things: frozenset[int]
    evaluated: frozenset[int]
    parts: Mapping[int, int]


def part_categories(name: str, parts: int) -> tuple[Category, ...]:
    """The category table of ``data_manifests/categories/<name>.json`` with its ``parts`` part classes.

    Ids are the source's: ``sid`` for classes, ``sid * 100 + pid`` of the evaluation for parts. ``extra`` says
    which place a class has among the evaluated ones (``contiguous_id``, whether they look at its parts) and,
    of a part, its number in flat part maps and the ``sid * 100 + pid`` that the files use for it.
    """
    facts = category_facts(name)
    classes = [
        Category(
            category_id=item["sid"],
            name=item["name"],
            kind="object" if item["has_instances"] else "stuff",
            is_thing=item["has_instances"],
            colour=int.from_bytes(bytes(item["colour"]), "big"),
            source_id=item["sid"],
            extra={
                "contiguous_id": item["contiguous_id"],
                "has_parts": parts in item.get("with_parts", ()),
            }
            if "contiguous_id" in item
            else None,
        )
        for item in facts["scene_classes"]
    ]
    modelled = ("sid_pid", "name", "source_name")
    return (
        *classes,
        *(
            Category(
                category_id=item["sid_pid"],
                name=item["name"],
                kind="part",
                parent_id=item["sid_pid"] // 100,
                supercategory=item["name"].partition(":")[0],
                source_id=item["sid_pid"],
                source_name=item.get("source_name"),
                extra={key: value for key, value in item.items() if key not in modelled},
            )
            for item in facts[f"parts_{parts}"]
        ),
    )


@cache
def part_classes(name: str, parts: int) -> Classes:
    """How to read the uids of a dataset with the categories of :func:`part_categories`."""
    categories = part_categories(name, parts)
    return Classes(
        names={item.category_id: item.name for item in categories if item.kind != "part"},
        things=frozenset(item.category_id for item in categories if item.kind == "object"),
        evaluated=frozenset(item.category_id for item in categories if item.kind != "part" and item.extra),
        parts={
            sid_pid: item.category_id
            for item in categories
            if item.kind == "part" and item.extra
            for sid_pid in item.extra["file_sid_pids"]
            if sid_pid > 99
        },
    )


def find_maps(root: Path, folder: str, pattern: str, fix: str) -> list[str]:
    """Relative paths of the maps in ``folder`` that match ``pattern``, sorted.

    Raises:
        SourceError: there are none.
    """
    found = sorted(path.relative_to(root).as_posix() for path in (root / folder).glob(pattern))
    if not found:
        raise SourceError(f"no {folder}/{pattern} here", where=root, fix=fix)
    return found


def existing(root: Path, files: Iterable[Files], options: PartsOptions) -> list[str]:
    """The files that a conversion reads, sorted."""
    names: list[str] = []
    for item in files:
        names.append(item.uids)
        if options.images != "none" and (root / item.photo).is_file():
            names.append(item.photo)
    return sorted(names)


def read_image(
    root: Path, key: str, files: Files, classes: Classes, options: PartsOptions, fix: str
) -> Record:
    """The image ``key`` with its objects, parts and stuff.

    Raises:
        SourceError: a file is missing or damaged, the map holds a number that is no uid, or its size is not
            the photo's.
    """
    path = root / files.uids
    runs = read_label_image(path)
    try:
        check_uids(runs.labels)
    except ValueError as error:
        raise SourceError(f"not a panoptic-parts map ({error})", where=path, fix=fix) from error
    try:
        digest = photo_digest(root, files.photo, (runs.height, runs.width), options.images)
    except FileNotFoundError:
        return photo_missing(root, files.photo, key, options.allow_missing, fix)
    annotations, findings = _annotate(runs, classes, key)
    image = ImageRow(
        file_name=files.photo,
        height=runs.height,
        width=runs.width,
        source_key=key,
        sha256=digest,
        pos_category_ids=tuple(dict.fromkeys(row.category_id for row in annotations if row.parent is None)),
        group=files.group,
    )
    return Record(
        image=image,
        annotations=annotations,
        panoptic=PanopticMap(file_name=files.uids, runs=runs),
        findings=findings,
    )


def _annotate(runs: Runs, classes: Classes, key: str) -> tuple[list[AnnotationRow], list[Finding]]:
    """Rows in the order of the uids, every object before its parts."""
    ids = unpack_uids(runs.labels)
    wholes = runs_to_segments(relabel_runs(runs, ids.sids_iids))
    # 0, void, collects what is no part; a part 0 is none either
    parts = runs_to_segments(relabel_runs(runs, np.where(ids.pids > 0, runs.labels, 0)))
    parts_of: dict[int, list[int]] = {}
    for index, uid in enumerate(parts.labels.tolist()):
        parts_of.setdefault(uid // 100, []).append(index)
    rows: list[AnnotationRow] = []
    findings: list[Finding] = []

    def find(reason: str, message: str) -> None:
        findings.append(Finding(source_key=key, reason=reason, message=message))

    for index, whole in enumerate(wholes.labels.tolist()):
        sid = whole if whole < 100 else whole // 1000
        if sid == 0:
            continue
        if sid not in classes.names:
            find("unknown-class", f"{wholes.areas[index]} pixels of class {sid}, which does not exist")
            continue
        thing, name = sid in classes.things, classes.names[sid]
        if whole > 99 and not thing:
            find("instance-of-stuff", f"{name} is stuff, but {whole} is an instance of it")
        parent = len(rows)
        crowd, ignored = thing and whole < 100, sid not in classes.evaluated
        rows.append(_row(wholes, index, sid, is_crowd=crowd, is_ignore=ignored))
        for part in parts_of.get(whole, ()):
            pid = int(parts.labels[part]) % 100
            category = classes.parts.get(100 * sid + pid)
            if category is None:
                find("part-without-category", f"{name} has no part {pid}: {parts.areas[part]} pixels")
                continue
            rows.append(_row(parts, part, category, parent=parent, is_ignore=ignored))
    return rows, findings


def _row(segments: Segments, index: int, category_id: int, **columns: Any) -> AnnotationRow:
    x, y, w, h = segments.boxes_xywh[index].tolist()
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=(float(x), float(y), float(w), float(h)),
        area=float(segments.areas[index]),
        rle=segments.rles[index],
        source_id=int(segments.labels[index]),
        **columns,
    )
