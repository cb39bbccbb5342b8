"""Tables of an evaluation, for the terminal and for the page: from the plain values of an assessment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTable:
    """Rows of texts; the first column is a name.

    Attributes:
        columns: their names.
        rows: texts.
        values: numbers to sort by, for every cell; None where there is none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[float | None, ...], ...] = field(default=())


def percent(value: float | None) -> str:
    """A fraction as a percentage with two decimals; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def between(low: float, high: float, *, signed: bool = False) -> str:
    """Both ends of an interval."""
    text = points if signed else percent
    return f"{text(low)} to {text(high)}"


def headline(item: Mapping[str, Any]) -> NumberTable:
    """Every number of an evaluation, with its interval where there is one."""
    with_intervals = bool(item["intervals"])
    rows = []
    for name, value in item["metrics"].items():
        interval = item["intervals"].get(name)
        rest = (between(interval["low"], interval["high"]) if interval else "–",) if with_intervals else ()
        rows.append((name, percent(value), *rest))
    return NumberTable(
        columns=("measure", "%", *(("95 % interval",) if with_intervals else ())), rows=tuple(rows)
    )


def comparison(item: Mapping[str, Any]) -> NumberTable | None:
    """The differences to another model; None where there is none."""
    if not item["differences"]:
        return None
    return NumberTable(
        columns=("measure", "first", "second", "difference", "95 % interval", "second better", "p", "real"),
        rows=tuple(
            (
                name,
                percent(row["first"]),
                percent(row["second"]),
                points(row["value"]),
                between(row["low"], row["high"], signed=True),
                f"{100 * row['better']:.1f} % of samples",
                f"{row['p']:.3f}",
                "yes" if row["is_real"] else "no",
            )
            for name, row in item["differences"].items()
        ),
    )


def classes(item: Mapping[str, Any], *, with_errors: bool = True) -> NumberTable | None:
    """One row per class; None for families without classes.

    Args:
        item: an evaluation.
        with_errors: also errors by kind, where there are any: six columns.
    """
    rows = item["result"].get("classes") or ()
    if not rows:
        return None
    if "ap" in rows[0]:
        return _average_precision(item, rows, with_errors)
    if "partpq" in rows[0]:
        return _segments(rows, ("partpq", "partsq", "partrq"), ("PartPQ", "PartSQ", "PartRQ"))
    if "pq" in rows[0]:
        return _segments(rows, ("pq", "sq", "rq"), ("PQ", "SQ", "RQ"))
    return _table(
        ("class", "IoU", "accuracy", "F1", "true pixels", "predicted"),
        [
            (
                row["name"],
                *((percent(row[name]), row[name]) for name in ("iou", "accuracy", "f1")),
                *((f"{row[name]:,}", row[name]) for name in ("true_pixels", "predicted_pixels")),
            )
            for row in rows
        ],
    )


def _average_precision(item: Mapping[str, Any], rows: Any, with_errors: bool) -> NumberTable:
    found = item["class_intervals"]
    with_groups = any(row["group"] for row in rows)
    kinds = item["errors"] if with_errors else None
    columns = ["class", *(["group"] if with_groups else []), "AP", *(["95 % interval"] if found else [])]
    columns += ["AP50", "true", "predicted"]
    names = tuple(kinds["kinds"])[:6] if kinds else ()
    lines = []
    for row in rows:
        key = str(row["category_id"])
        line: list[Any] = [row["name"]]
        if with_groups:
            line.append((row["group"] or "", None))
        line.append((percent(row["ap"]), row["ap"]))
        if found:
            ends = found.get(key)
            line.append((between(ends["low"], ends["high"]), ends["low"]) if ends else ("–", None))
        line.append((percent(row["ap50"]), row["ap50"]))
        line += [(f"{row[name]:,}", row[name]) for name in ("ground_truth", "predictions")]
        counts = kinds["classes"].get(key, {}) if kinds else {}
        line += [(f"{counts.get(name, 0):,}", counts.get(name, 0)) for name in names]
        lines.append(tuple(line))
    return _table((*columns, *names), lines)


def _segments(rows: Any, keys: tuple[str, ...], names: tuple[str, ...]) -> NumberTable:
    return _table(
        ("class", *names, "right", "wrong", "missed"),
        [
            (
                row["name"],
                *((percent(row[key]), row[key]) for key in keys),
                *((f"{row[key]:,}", row[key]) for key in ("tp", "fp", "fn")),
            )
            for row in rows
        ],
    )


def errors(item: Mapping[str, Any]) -> NumberTable | None:
    """Errors by kind; None where they were not asked for."""
    if item["errors"] is None:
        return None
    return NumberTable(
        columns=("error", "number", "AP50 without it"),
        rows=tuple(
            (name.replace("_", " "), f"{row['count']:,}", "–" if row["cost"] is None else points(row["cost"]))
            for name, row in item["errors"]["kinds"].items()
        ),
    )


def sizes(item: Mapping[str, Any]) -> NumberTable | None:
    """How much was found by size; None for families without sizes."""
    if not item["sizes"]:
        return None
    return NumberTable(
        columns=("side in pixels", "true", "found at .50", "found at .75"),
        rows=tuple(
            (
                f"{row['low']} to {row['high']}" if row["high"] else f"{row['low']} and more",
                f"{row['ground_truth']:,}",
                _share(row["found"], row["ground_truth"]),
                _share(row["found75"], row["ground_truth"]),
            )
            for row in item["sizes"]
        ),
    )


def confusion(part: Mapping[str, Any]) -> NumberTable:
    """What the parts of an object class were taken for."""
    return NumberTable(
        columns=(part["name"], *part["columns"]),
        rows=tuple(
            (name, *(f"{number:,}" for number in counts))
            for name, counts in zip(part["parts"], part["counts"], strict=True)
        ),
        values=tuple(tuple(_shares(counts)) for counts in part["counts"]),
    )


def confused(item: Mapping[str, Any], most: int) -> NumberTable | None:
    """The parts that were taken for others most often; None where there are none."""
    found = [
        (number, f"{part['name']}:{name}", label, sum(counts))
        for part in item["confusion"]
        for name, counts in zip(part["parts"], part["counts"], strict=True)
        for label, number in zip(part["columns"], counts, strict=True)
        if number and label not in (name, "nothing")
    ]
    if not found:
        return None
    found.sort(key=lambda row: (-row[0], row[1:3]))
    return NumberTable(
        columns=("true part", "taken for", "number", "of"),
        rows=tuple((name, label, f"{n:,}", f"{total:,}") for n, name, label, total in found[:most]),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts)
    return [number / total if total else 0.0 for number in counts]


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> NumberTable:
    return NumberTable(
        columns=columns,
        rows=tuple((row[0], *(text for text, _ in row[1:])) for row in rows),
        values=tuple((None, *(value for _, value in row[1:])) for row in rows),
    )
