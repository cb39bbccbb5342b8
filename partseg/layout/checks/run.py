"""Checks whole datasets, alone and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow.compute as pc

from partseg.layout.checks import boxes, extras, files, leakage, masks, tables
from partseg.layout.checks.columns import read_columns
from partseg.layout.checks.found import Found, Rule, join
from partseg.layout.reader import Dataset
from partseg.progress import Progress, Silent

RULES: tuple[Rule, ...] = (
    *files.RULES,
    *tables.RULES,
    *boxes.RULES,
    *masks.RULES,
    *extras.RULES,
    *leakage.RULES,
)
"""Every rule."""


def check(datasets: Sequence[Dataset], *, quick: bool = False, report: Progress | None = None) -> Any:
    """Every case in which a rule is broken, as ``pyarrow.Table`` with the columns ``FOUND``.

    Memory is bounded by the columns of the largest split without its masks.

    Args:
        datasets: one or several; photos of an evaluation split are looked for in the training splits of all.
        quick: do not decode masks and panoptic maps.
        report: told how many annotations are done.
    """
    report = report or Silent()
    total = sum(entry.annotations.rows for dataset in datasets for entry in dataset.manifest.splits.values())
    labels = names(datasets)
    photos: list[leakage.Photos] = []
    results, done = [], 0
    for dataset, label in zip(datasets, labels, strict=True):
        found = Found(label)
        done = _check_dataset(dataset, found, photos, quick=quick, report=report, done=done, total=total)
        results.append(found.table())
    results.extend(leakage.check(photos))
    return join(results)


def audit(dataset: Dataset) -> list[str]:
    """Every error of one dataset as one sentence; empty for a sound one."""
    table = check([dataset])
    errors = table.filter(pc.equal(table["severity"], "error"))
    return [sentence(row) for row in errors.to_pylist()]


def sentence(case: dict[str, Any]) -> str:
    """One row of the table of cases for a person."""
    named = (("split", "split"), ("image_id", "image"), ("ann_id", "annotation"))
    where = ", ".join(f"{name} {case[key]}" for key, name in named if case[key] is not None)
    return f"{where}: {case['message']}" if where else str(case["message"])


def _check_dataset(
    dataset: Dataset,
    found: Found,
    photos: list[leakage.Photos],
    *,
    quick: bool,
    report: Progress,
    done: int,
    total: int,
) -> int:
    """Check one dataset, add its photos to ``photos`` and return how many annotations are done."""
    start = done + sum(entry.annotations.rows for entry in dataset.manifest.splits.values())
    if not files.check_categories(dataset, found):
        return start
    tables.check_category_table(dataset, found)
    seen, used, complete = set[int](), set[int](), True
    for name, entry in dataset.manifest.splits.items():
        message = f"{found.dataset} {name}"
        report.update(done, total, message)
        if not files.check_split(dataset, name, found):
            complete = False
        else:
            columns = read_columns(dataset.split(name))
            joined, linked = tables.check_split(dataset, columns, seen, found)
            used |= tables.used_categories(columns)
            if joined:
                boxes.check(columns, found)
                if not quick:
                    progress = partial(_tell, report, done, total, message)
                    masks.check(columns, linked, found, progress)
                    extras.check_polygons(columns, found)
                    extras.check_panoptic(columns, linked, found)
            photos.append(leakage.photos(dataset, found.dataset, columns))
        done += entry.annotations.rows
    if complete:
        tables.check_unused(dataset, used, found)
    return start


def _tell(report: Progress, before: int, total: int, message: str, rows: int) -> None:
    report.update(before + rows, total, message)


def names(datasets: Sequence[Dataset]) -> list[str]:
    """How each dataset is called in the table: by its name, and its folder where two have the same."""
    plain = [dataset.manifest.name for dataset in datasets]
    return [
        name if plain.count(name) == 1 else f"{name} ({dataset.folder})"
        for name, dataset in zip(plain, datasets, strict=True)
    ]
