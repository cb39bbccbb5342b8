"""Evaluations, curves and pseudo-labels → the content of a report; and the page of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.evaluate import PREDICTIONS, RESULTS
from pipelines.inputs import open_dataset
from pipelines.params import Ref, StageParams

VERSION = "2"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Entry):
    """One model of the comparison: its name, a line on how it was trained, and its evaluate stage."""

    name: str
    description: str = ""
    evaluation: Ref


class Parsed(_Entry):
    """Pseudo-labels to show, and true parts of the same images where somebody knows them."""

    data: Ref
    split: str = "train"
    truth: Ref | None = None
    truth_split: str = "train"


class Number(_Entry):
    """A published number: measure such as ``segm/novel/AP50``, value in percent, and where it stands."""

    model: str
    measure: str
    value: float
    source: str


class Note(_Entry):
    """Something the reader should know."""

    heading: str
    text: str


class Params(StageParams):
    """What the report shows.

    Attributes:
        title: the headline.
        summary: one paragraph on what was done.
        models: the first one is what the others are compared with.
        data: the dataset they were evaluated on.
        split: its split.
        curves: name of a training -> its train stage.
        parsed: pseudo-labels.
        published: numbers to put beside the reproduced ones.
        notes: for the reader.
        examples: how many images of each kind to show.
    """

    title: str
    summary: str = ""
    models: tuple[Model, ...] = Field(min_length=1)
    data: Ref
    split: str = "val"
    curves: dict[str, Ref] = Field(default_factory=dict)
    parsed: Parsed | None = None
    published: tuple[Number, ...] = ()
    notes: tuple[Note, ...] = ()
    examples: int = Field(default=6, ge=1)


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Write tables, curves and pictures; nothing that depends on when or where they were made."""
    from partseg.report.content import ModelEntry, ParsedEntry, Published, build

    dataset = open_dataset(inputs[params.data])
    report.update(0, 1, "drawing pictures")
    parsed = None
    if params.parsed is not None:
        labels = open_dataset(inputs[params.parsed.data])
        truth = open_dataset(inputs[params.parsed.truth]) if params.parsed.truth else None
        parsed = ParsedEntry(
            split=labels.split(params.parsed.split),
            categories=labels.categories,
            truth=truth.split(params.parsed.truth_split) if truth else None,
            truth_categories=truth.categories if truth else (),
        )
    build(
        out,
        title=params.title,
        summary=params.summary,
        models=[
            ModelEntry(name=model.name, description=model.description, **_evaluated(inputs[model.evaluation]))
            for model in params.models
        ],
        split=dataset.split(params.split),
        categories=dataset.categories,
        curves={name: inputs[ref].path / "metrics.jsonl" for name, ref in params.curves.items()},
        parsed=parsed,
        notes=[(note.heading, note.text) for note in params.notes],
        published=[Published(**number.model_dump()) for number in params.published],
        examples=params.examples,
    )
    report.update(1, 1, "pictures drawn")
    return {"models": len(params.models), "pictures": len(list((out / "images").iterdir()))}


def finish(artifact: Artifact | None, summary: Mapping[str, Any], destination: Path) -> None:
    """Write the page of one run: the report's content with that run's stages, states and times.

    Args:
        artifact: of the report stage; None for a recipe without one.
        summary: the run's manifest, with the published rows under ``zoo``.
        destination: the HTML file.
    """
    from partseg.report.page import RunSummary, StageSummary, render
    from pipelines.zoo_state import TOLERANCE

    stages = [
        StageSummary(
            name=entry["stage"],
            kind=entry["kind"],
            needs=entry["needs"],
            state="ran" if entry["state"] == "built" else entry["state"],
            seconds=entry.get("built_seconds"),
            key=entry.get("key") or "",
            metrics=entry.get("metrics") or {},
        )
        for entry in summary["stages"]
    ]
    label = f"{summary['recipe']}@{summary['profile']}" if summary["profile"] else str(summary["recipe"])
    run_summary = RunSummary(
        recipe=label,
        run_id=summary["run_id"],
        started=summary["started"],
        seconds=_elapsed(summary["started"], summary["finished"]),
        stages=stages,
        description=summary.get("description", ""),
        profile=summary["profile"],
        zoo=summary.get("zoo", ()),
        tolerance=TOLERANCE,
    )
    render(artifact.path if artifact is not None else None, run_summary, destination)


def _evaluated(artifact: Artifact) -> dict[str, Any]:
    from partseg.evaluation.average_precision_result import APResult
    from partseg.evaluation.predictions import read_predictions

    content = orjson.loads((artifact.path / RESULTS).read_bytes())
    return {
        "results": [APResult.from_dict(item) for item in content.values()],
        "predictions": read_predictions(artifact.path / PREDICTIONS),
    }


def _elapsed(started: str, finished: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
