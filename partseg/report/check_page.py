"""One self-contained page of the broken rules of datasets, with the worst cases drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from partseg.errors import PartsegError
from partseg.files import write_file
from partseg.layout import Dataset, ImageRecord
from partseg.layout.checks import RULES
from partseg.report.html import picture_uri, templates
from partseg.report.overlays import Shape, draw
from partseg.report.pictures import grey, shape_mask

_CASE, _OBJECT, _BOX = (214, 62, 42), (45, 108, 210), (236, 164, 28)
_SHORT_SIDE = 300
_QUALITY = 80
_PER_RULE = 9  # cases that are drawn, the worst first
_LEAST_SHOWN = 96  # pixels of the image
_AROUND = 1.8  # shown, as a multiple of what is drawn
_SEVERITIES = ("error", "warning", "note")


def write_check_page(datasets: Mapping[str, Dataset], cases: Any, destination: Path) -> None:
    """Write one HTML file.

    Args:
        datasets: by the name they have in the table; photos are drawn where their folder is known.
        cases: what :func:`partseg.layout.checks.check` found.
        destination: the file; it appears complete or not at all.
    """
    counts = {severity: _count(cases, "severity", severity) for severity in _SEVERITIES}
    rules = []
    for rule in sorted(RULES, key=lambda rule: _SEVERITIES.index(rule.severity)):
        if number := _count(cases, "rule", rule.code):
            shown = [_case(row, datasets[row["dataset"]]) for row in worst(cases, rule.code, _PER_RULE)]
            rules.append(
                {
                    "code": rule.code,
                    "severity": rule.severity,
                    "meaning": rule.meaning,
                    "cases": number,
                    "shown": shown,
                }
            )
    names = ", ".join(datasets)
    html = (
        templates()
        .get_template("check.html.j2")
        .render(
            title="Sound" if not counts["error"] + counts["warning"] else _headline(counts),
            datasets=names,
            summary=_summary(datasets, len(rules)),
            rules=rules,
        )
    )
    write_file(destination, html.encode())


def worst(cases: Any, code: str, number: int) -> list[dict[str, Any]]:
    """The worst cases of one rule, each in another image as far as there are enough."""
    rows = cases.filter(pc.equal(cases["rule"], code))
    order = pc.sort_indices(rows, [("value", "descending", "at_end")])
    ranked = rows.take(order.slice(0, 50 * number)).to_pylist()
    seen: set[tuple[str, str | None, int | None]] = set()
    first, again = list[dict[str, Any]](), list[dict[str, Any]]()
    for row in ranked:
        place = (row["dataset"], row["split"], row["image_id"])
        (again if place in seen else first).append(row)
        seen.add(place)
    return [*first, *again][:number]


def _count(cases: Any, column: str, value: str) -> int:
    return int(pc.sum(pc.equal(cases[column], value)).as_py() or 0)


def _headline(counts: Mapping[str, int]) -> str:
    parts = [f"{counts[kind]:,} {kind}{'s' * (counts[kind] != 1)}" for kind in _SEVERITIES if counts[kind]]
    return ", ".join(parts)


def _summary(datasets: Mapping[str, Dataset], broken: int) -> str:
    splits = [entry for dataset in datasets.values() for entry in dataset.manifest.splits.values()]
    images, annotations = (
        sum(entry.images.rows for entry in splits),
        sum(entry.annotations.rows for entry in splits),
    )
    return f"{len(RULES)} rules over {images:,} images and {annotations:,} annotations; {broken} are broken."


def _case(row: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What the template needs of one case."""
    named = (("split", "split"), ("image_id", "image"), ("ann_id", "annotation"))
    where = [f"{name} {row[key]}" for key, name in named if row[key] is not None]
    found = _find(row, dataset)
    what, picture = "", None
    if found is not None:
        record, image = found
        names = {category.category_id: category.name for category in dataset.categories}
        places = np.flatnonzero(record.ann_ids == row["ann_id"]).tolist()
        what = names.get(int(record.category_ids[places[0]]), "") if places else record.source_key
        picture = _data_uri(_draw(record, image, places[0] if places else None))
    return {
        "what": what,
        "message": f"{row['message']}.",
        "where": ", ".join([row["dataset"], *where]),
        "picture": picture,
    }


def _find(row: Mapping[str, Any], dataset: Dataset) -> tuple[ImageRecord, Any] | None:
    """Record and photo of a case; None where it has no image, or one that is too broken to be read."""
    if row["split"] is None or row["image_id"] is None:
        return None
    try:
        split = dataset.split(row["split"])
        index = int(np.flatnonzero(split.batch("images")["image_id"].to_numpy() == row["image_id"])[0])
        record = split[index]
    except (PartsegError, ValueError, IndexError):
        return None
    try:
        return record, grey(record) if split.image_root is None else split.read_image(index)
    except PartsegError:
        return record, grey(record)


def _draw(record: ImageRecord, image: Any, row: int | None) -> Image.Image:
    """The annotation filled, its object and its stated box outlined; all objects outlined without one."""
    if row is None:
        rows = [(place, "object", False) for place in np.flatnonzero(record.parent_rows < 0).tolist()]
        return _flat(image, _shapes(record, rows))
    parent = int(record.parent_rows[row])
    rows = [(parent, "object", False)] if 0 <= parent < len(record.ann_ids) else []
    shapes = _shapes(record, [*rows, (row, "case", True)])
    x, y, w, h = record.boxes_xywh[row].tolist()
    stated = (x, y, x + max(w, 0), y + max(h, 0)) if np.isfinite([x, y, w, h]).all() else None
    left, top, right, bottom = _region(shapes, stated, record.height, record.width)
    cropped = [
        Shape(mask=shape.mask[top:bottom, left:right], name=shape.name, filled=shape.filled)
        for shape in shapes
    ]
    picture = _flat(np.ascontiguousarray(image[top:bottom, left:right]), cropped)
    if stated is not None:
        scale, limit = picture.width / (right - left), 4 * max(picture.size)
        corners = (np.array(stated) - [left, top, left, top]) * scale
        ImageDraw.Draw(picture).rectangle(np.clip(corners, -limit, limit).tolist(), outline=_BOX, width=2)
    return picture


def _region(
    shapes: Sequence[Shape], box: tuple[float, float, float, float] | None, height: int, width: int
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what to show: all that is drawn, and a good deal around it."""
    spans = [] if box is None else [box]
    for shape in shapes:
        y, x = np.nonzero(shape.mask)
        if len(x):
            spans.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    if not spans:
        return 0, 0, width, height
    ends = np.array(spans)
    low = ends[:, :2].min(axis=0).clip(0, (width, height))
    high = ends[:, 2:].max(axis=0).clip(0, (width, height))
    half = max(_LEAST_SHOWN, _AROUND * float((high - low).max())) / 2
    x, y = ((low + high) / 2).tolist()
    left, top = max(0, int(x - half)), max(0, int(y - half))
    return left, top, min(width, max(left + 1, int(x + half))), min(height, max(top + 1, int(y + half)))


def _shapes(record: ImageRecord, rows: Sequence[tuple[int, str, bool]]) -> list[Shape]:
    """Shapes of (row, name, filled), without those that have no mask."""
    shapes = []
    for row, name, filled in rows:
        if record.rles[row] is not None:
            # What is not a mask of this image may be the case itself.
            with suppress(ValueError):
                shapes.append(Shape(mask=shape_mask(record, row), name=name, filled=filled))
    return shapes


def _flat(image: Any, shapes: Sequence[Shape]) -> Image.Image:
    colours = {"case": _CASE, "object": _OBJECT}
    return draw(image, shapes, colours, short_side=_SHORT_SIDE, labels=False)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return picture_uri(buffer.getvalue())
