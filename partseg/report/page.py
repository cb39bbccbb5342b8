"""The page itself: content of a report joined with the states and times of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from markupsafe import Markup

from partseg.errors import PartsegError
from partseg.files import write_file
from partseg.report.content import FORMAT
from partseg.report.curves_svg import Line, chart_svg
from partseg.report.graph_svg import graph_svg, seconds_text, short_time
from partseg.report.html import picture_uri, templates
from partseg.report.zoo_section import zoo_section

HEADLINE = ("all", "base", "novel")  # columns of the first table; "all" is the mean over every part class


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """What became of one stage.

    Attributes:
        state: "cached", "ran", "skipped", "failed", "blocked" or any other word.
        seconds: how long it took in this run; None if it did not run.
        key: its content key.
        metrics: what it reported.
    """

    name: str
    kind: str
    needs: Sequence[str]
    state: str
    seconds: float | None = None
    key: str = ""
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What the picture says beside its name."""
        return short_time(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a recipe.

    Attributes:
        recipe: its name, and the profile.
        run_id: of the run.
        started: a text for people.
        seconds: the whole run's duration.
        stages: what became of them.
        description: of the recipe.
        profile: of the run.
        zoo: published rows that the recipe covers, see :func:`partseg.report.zoo_section.zoo_section`.
        tolerance: what their colours mean, in words.
    """

    recipe: str
    run_id: str
    started: str
    seconds: float
    stages: Sequence[StageSummary]
    description: str = ""
    profile: str | None = None
    zoo: Sequence[Mapping[str, Any]] = ()
    tolerance: str = ""


def render(report_dir: Path | None, run: RunSummary, destination: Path) -> None:
    """Write one self-contained HTML file.

    Args:
        report_dir: what :func:`partseg.report.content.build` wrote; without it the page has the run alone.
        run: the run to describe.
        destination: the file; it appears complete or not at all.

    Raises:
        PartsegError: the folder holds no report content of this format.
    """
    content = _bare(run) if report_dir is None else _read(report_dir / "report.json")
    environment = templates()
    environment.filters |= {
        "percent": percent,
        "delta": delta,
        "duration": seconds_text,
        "picture": lambda path: picture_uri((Path(report_dir or "") / path).read_bytes()),
    }
    html = environment.get_template("report.html.j2").render(
        content=content,
        run=run,
        graph=Markup(graph_svg(run.stages)),
        charts=[_chart(curve) for curve in content["curves"]],
        tables=[table for kind in ("segm", "bbox") if (table := headline_table(content["models"], kind))],
        classes=class_table(content["models"]),
        cards=cards(content, run),
        zoo=zoo_section(run.zoo, tolerance=run.tolerance, profile=run.profile),
    )
    write_file(destination, html.encode())


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def delta(value: float | None) -> str:
    """A difference of fractions in points, with its sign."""
    if value is None:
        return ""
    text = f"{100 * value:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def headline_table(models: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any] | None:
    """AP and AP50 over all, base and novel part classes, with the difference to the first model."""
    rated = [model for model in models if kind in model["results"]]
    if not rated:
        return None
    groups = [g for g in HEADLINE if g == "all" or any(g in m["results"][kind]["groups"] for m in rated)]
    rows = []
    for model in rated:
        result, first = model["results"][kind], rated[0]["results"][kind]
        cells = []
        for group in groups:
            for measure in ("AP", "AP50"):
                value, reference = _value(result, group, measure), _value(first, group, measure)
                known = model is not rated[0] and value is not None and reference is not None
                cells.append({"value": value, "delta": value - reference if known else None})
        rows.append({"name": model["name"], "description": model["description"], "cells": cells})
    counts = {g: _class_count(rated[0]["results"][kind], g) for g in groups}
    title = "Masks" if kind == "segm" else "Boxes"
    return {"title": title, "groups": groups, "rows": rows, "counts": counts}


def _value(result: Mapping[str, Any], group: str, measure: str) -> Any:
    source = result["stats"] if group == "all" else result["groups"].get(group, {})
    return source.get(measure)


def _class_count(result: Mapping[str, Any], group: str) -> int:
    if group != "all":
        return int(result["groups"].get(group, {}).get("classes", 0))
    return sum(row["ap"] is not None for row in result["classes"])


def class_table(models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """AP50 of masks per class and model, only classes with ground truth."""
    rated = [model for model in models if "segm" in model["results"]]
    if not rated:
        return None
    by_id = [{row["category_id"]: row for row in m["results"]["segm"]["classes"]} for m in rated]
    rows = []
    for row in rated[0]["results"]["segm"]["classes"]:
        if row["ground_truth"]:
            values = [table.get(row["category_id"], {}).get("ap50") for table in by_id]
            change = (
                values[-1] - values[0] if len(values) > 1 and None not in (values[0], values[-1]) else None
            )
            rows.append({**row, "values": values, "change": change})
    return {"models": [m["name"] for m in rated], "rows": rows}


def cards(content: Mapping[str, Any], run: RunSummary) -> list[dict[str, Any]]:
    """The few numbers a reader wants first."""
    result: list[dict[str, Any]] = []
    table = headline_table(content["models"], "segm")
    if table:
        last = table["rows"][-1]
        for i, group in reversed(list(enumerate(table["groups"]))):
            cell = last["cells"][2 * i + 1]
            result.append(
                {
                    "label": f"Mask AP50, {group} parts",
                    "value": percent(cell["value"]),
                    "change": cell["delta"],
                    "foot": last["name"],
                }
            )
    if content["parsed"]:
        quality = content["parsed"]["quality"]
        foot = (
            f"{percent(quality['precision'])} % of their parts are truly there"
            if quality
            else "pseudo-labelled"
        )
        result.append(
            {
                "label": "Parsed images",
                "value": f"{content['parsed']['images']:,}",
                "change": None,
                "foot": foot,
            }
        )
    ran = sum(stage.state == "ran" for stage in run.stages)
    foot = f"{ran} of {len(run.stages)} stages ran" if run.stages else ""
    result.append({"label": "This run", "value": seconds_text(run.seconds), "change": None, "foot": foot})
    return result


def _chart(curve: Mapping[str, Any]) -> dict[str, Any]:
    lines = [Line(name=line["name"], x=tuple(line["x"]), y=tuple(line["y"])) for line in curve["lines"]]
    lines = lines[:8]
    return {
        "stage": curve["stage"],
        "svg": Markup(chart_svg(lines, f"Losses of {curve['stage']}")),
        "lines": [{"name": line.name, "last": line.y[-1]} for line in lines if line.y],
    }


def _bare(run: RunSummary) -> dict[str, Any]:
    """The content of a report without any results of its own."""
    content: dict[str, Any] = {"title": run.recipe, "summary": run.description, "parsed": None}
    return {**content, **dict.fromkeys(("models", "curves", "examples", "notes", "published"), ())}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise PartsegError(f"no readable report content ({error})", where=path) from error
    if content.get("format") != FORMAT:
        raise PartsegError(
            f"report content of format {content.get('format')}, expected {FORMAT}",
            where=path,
            fix="run the report stage again",
        )
    return content
