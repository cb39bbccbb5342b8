"""The part of a report that depends on results only: ``report.json`` and pictures.

Two builds from the same inputs write the same bytes. States and times of a run join later, in
:mod:`partseg.report.page`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from partseg.evaluation.average_precision_result import APResult
from partseg.evaluation.instance_truth import CategoryLike
from partseg.evaluation.paired_images import image_names, pair_images
from partseg.evaluation.parse_audit import audit_parse
from partseg.evaluation.predictions import Predictions
from partseg.files import write_file
from partseg.layout import Category, ImageRecord, Split, rle_to_mask
from partseg.report.curves_svg import read_curves
from partseg.report.overlays import Shape, draw, palette

FORMAT = "partseg-report-2"
MAX_PARTS = 14  # drawn per picture; more cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model to compare.

    Attributes:
        name: short, as in a table's first column.
        description: one line on how it was trained.
        results: its average precision, one per kind of overlap.
        predictions: what it predicted, for the pictures.
    """

    name: str
    description: str
    results: Sequence[APResult]
    predictions: Predictions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEntry:
    """Pseudo-labels to show.

    Attributes:
        split: parsed images.
        categories: their categories.
        truth: the same images with true parts, where somebody knows them.
        truth_categories: their categories.
    """

    split: Split
    categories: Sequence[Category]
    truth: Split | None = None
    truth_categories: Sequence[Category] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A number from a paper: ``measure`` as in :meth:`APResult.metrics`, value in percent."""

    model: str
    measure: str
    value: float
    source: str


def build(
    out: Path,
    *,
    title: str,
    summary: str,
    models: Sequence[ModelEntry],
    split: Split,
    categories: Sequence[Category],
    curves: Mapping[str, Path],
    parsed: ParsedEntry | None = None,
    notes: Sequence[tuple[str, str]] = (),
    published: Sequence[Published] = (),
    examples: int = 6,
) -> None:
    """Write the content of a report.

    Args:
        out: a folder; ``report.json`` and ``images/`` are written into it.
        title: the page's headline.
        summary: one paragraph on what was done.
        models: the first is the one others are compared with.
        split: evaluated images.
        categories: of the evaluated dataset.
        curves: training stage -> its metrics.jsonl.
        parsed: pseudo-labels.
        notes: (heading, text) pairs for the reader.
        published: numbers to put beside the reproduced ones.
        examples: how many images of each kind to show.
    """
    colours = palette(
        c.name for c in [*categories, *(parsed.categories if parsed else [])] if c.kind == "part"
    )
    save = _picture_saver(out)
    content: dict[str, Any] = {
        "format": FORMAT,
        "title": title,
        "summary": summary,
        "models": [_model(entry) for entry in models],
        "curves": [
            {"stage": stage, "lines": [asdict(line) for line in read_curves(path)]}
            for stage, path in curves.items()
        ],
        "examples": _example_rows(split, categories, models, colours, save, examples),
        "parsed": _parsed(parsed, colours, save, examples) if parsed else None,
        "notes": [{"heading": heading, "text": text} for heading, text in notes],
        "published": [_compared(row, models) for row in published],
    }
    write_file(out / "report.json", orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _model(entry: ModelEntry) -> dict[str, Any]:
    results = {result.iou_type: result.as_dict() for result in entry.results}
    return {"name": entry.name, "description": entry.description, "results": results}


def _compared(row: Published, models: Sequence[ModelEntry]) -> dict[str, Any]:
    found: float | None = None
    for entry in models:
        if entry.name == row.model:
            metrics = {k: v for result in entry.results for k, v in result.metrics().items()}
            found = metrics.get(row.measure)
    return {**asdict(row), "reproduced": None if found is None else 100 * found}


def _picture_saver(out: Path) -> Callable[..., str]:
    def save(
        image: npt.NDArray[np.uint8], shapes: Sequence[Shape], colours: Mapping[str, Any], name: str
    ) -> str:
        buffer = io.BytesIO()
        draw(image, shapes, colours).save(buffer, "WEBP", quality=84, method=4)
        write_file(out / "images" / f"{name}.webp", buffer.getvalue())
        return f"images/{name}.webp"

    return save


def _example_rows(
    split: Split,
    categories: Sequence[Category],
    models: Sequence[ModelEntry],
    colours: Mapping[str, Any],
    save: Callable[..., str],
    limit: int,
) -> list[dict[str, Any]]:
    """Truth and predictions of a few images; each model shows as many parts as there are true ones."""
    table = {c.category_id: c for c in categories}
    rows = []
    for index in choose_examples(split, categories, limit):
        record, image = split[index], split.read_image(index)
        truth = true_shapes(record, categories)
        panels = [("Ground truth", truth)] + [
            (entry.name, _predicted_shapes(record, entry.predictions, table, min(MAX_PARTS, len(truth))))
            for entry in models
            if entry.predictions is not None
        ]
        rows.append(
            {
                "caption": caption_of(record, categories),
                "panels": [
                    {
                        "title": title,
                        "parts": len(shapes),
                        "image": save(image, shapes, colours, f"example-{record.image_id:06d}-{i}"),
                    }
                    for i, (title, shapes) in enumerate(panels)
                ],
                "legend": _legend([s.name for _, shapes in panels for s in shapes], colours),
            }
        )
    return rows


def choose_examples(split: Split, categories: Sequence[CategoryLike], limit: int) -> list[int]:
    """Images worth a look: spread over the split, novel and base objects in turn, at least two parts each."""
    parts = {c.category_id: c.group for c in categories if c.kind == "part"}
    novel: list[int] = []
    other: list[int] = []
    for index in range(len(split)):
        groups = [parts[i] for i in split[index].category_ids.tolist() if i in parts]
        if len(groups) >= 2:
            (novel if "novel" in groups else other).append(index)
    half = min(len(novel), (limit + 1) // 2)
    chosen = [_spread(novel, max(half, limit - len(other))), _spread(other, limit - half)]
    mixed = [i for pair in zip(*_padded(chosen), strict=True) for i in pair if i is not None]
    return mixed[:limit]


def _spread(values: Sequence[int], count: int) -> list[int]:
    count = min(count, len(values))
    return [values[(2 * i + 1) * len(values) // (2 * count)] for i in range(count)]


def _padded(lists: Sequence[list[int]]) -> list[list[int | None]]:
    longest = max(len(values) for values in lists)
    return [[*values, *[None] * (longest - len(values))] for values in lists]


def caption_of(record: ImageRecord, categories: Sequence[Category]) -> str:
    """The objects of an image, such as "dog (novel)"."""
    table = {c.category_id: c for c in categories}
    novel = {c.parent_id for c in categories if c.kind == "part" and c.group == "novel"}
    ids = dict.fromkeys([i for i in record.category_ids.tolist() if table[i].kind == "object"])
    return ", ".join(table[i].name + (" (novel)" if i in novel else "") for i in ids)


def true_shapes(record: ImageRecord, categories: Sequence[Category]) -> list[Shape]:
    """Annotated parts that have a mask, the largest first."""
    names = {c.category_id: c.name for c in categories if c.kind == "part"}
    shapes = [
        Shape(mask=rle_to_mask(rle, record.height, record.width), name=names[category_id])
        for category_id, rle in zip(record.category_ids.tolist(), record.rles, strict=True)
        if category_id in names and rle is not None
    ]
    return sorted(shapes, key=lambda s: -int(s.mask.sum()))[:MAX_PARTS]


def _predicted_shapes(
    record: ImageRecord, predictions: Predictions, table: Mapping[int, Category], limit: int
) -> list[Shape]:
    rows = predictions.of_image(record.image_id)
    kept = [
        i for i in np.argsort(-rows.scores, kind="stable") if table[int(rows.category_ids[i])].kind == "part"
    ]
    return [
        Shape(
            mask=rle_to_mask(rle, record.height, record.width),
            name=table[int(rows.category_ids[i])].name,
            score=float(rows.scores[i]),
        )
        for i in kept[:limit]
        if (rle := rows.rles[i]) is not None
    ]


def _legend(names: Sequence[str], colours: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": n, "colour": "#{:02x}{:02x}{:02x}".format(*colours[n])} for n in sorted(set(names))]


def _parsed(
    entry: ParsedEntry, colours: Mapping[str, Any], save: Callable[..., str], limit: int
) -> dict[str, Any]:
    split, truth = entry.split, entry.truth
    known = pair_images(image_names(split), image_names(truth)).rows if truth is not None else ()
    colours = {**palette(c.name for c in entry.truth_categories if c.kind == "part"), **colours}
    rows = []
    for index in _by_label(split, limit):
        record, image = split[index], split.read_image(index)
        panels = [("Parsed", true_shapes(record, entry.categories))]
        if truth is not None and (place := known[index]) is not None:
            panels.append(("Hidden truth", true_shapes(truth[place], entry.truth_categories)))
        rows.append(
            {
                "caption": caption_of(record, entry.categories),
                "panels": [
                    {
                        "title": title,
                        "parts": len(shapes),
                        "image": save(image, shapes, colours, f"parsed-{record.image_id:06d}-{i}"),
                    }
                    for i, (title, shapes) in enumerate(panels)
                ],
                "legend": _legend([s.name for _, shapes in panels for s in shapes], colours),
            }
        )
    quality = (
        truth and audit_parse(split, entry.categories, truth, entry.truth_categories).as_dict()["overall"]
    )
    return {"rows": rows, "quality": quality or None, "images": len(split)}


def _by_label(split: Split, limit: int) -> list[int]:
    """Images of as many different labels as possible, in the order of the split."""
    by_label: dict[tuple[int, ...], list[int]] = {}
    for index in range(len(split)):
        by_label.setdefault(tuple(split[index].pos_category_ids.tolist()), []).append(index)
    turns = (
        [row for group in zip(*_padded(list(by_label.values())), strict=True) for row in group]
        if by_label
        else []
    )
    return sorted([row for row in turns if row is not None][:limit])
