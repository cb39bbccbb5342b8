"""What a run shows on Prefect's pages: its plan, how far a stage is, and the report."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from partseg.cli.plan import summary
from pipelines.cost import outlook
from pipelines.plan import Plan
from pipelines.run import Run
from pipelines.watch import Result
from pipelines.workspace import Workspace

INTERVAL = 5.0
"""Seconds between two updates of a progress artifact: each is a call to the server."""
LARGEST_PICTURE = 360_000
"""Bytes of a picture that goes into the page; base64 makes 480 kB of it, and the database keeps that."""


def show_plan(plan: Plan, workspace: Workspace) -> None:
    """The plan as a table, and what it still costs."""
    rows = [
        {
            "stage": row.stage,
            "kind": row.kind,
            "state": row.state,
            "why": "; ".join(row.why),
            "published cost": row.cost or "",
            "key": (row.key or "")[:12],
        }
        for row in plan.rows
    ]
    words = "\n".join(f"- {line}" for line in summary(plan, outlook(plan, workspace)))
    create_table_artifact(
        key=_key("plan", plan.recipe.label),
        table=rows,
        description=f"Plan of {plan.recipe.label}\n\n{words}",
    )


def show_report(run: Run, page: Path | None) -> None:
    """What came out, as markdown with a picture, and a link to the page itself."""
    label = run.plan.recipe.label
    lines = [f"# {label}", "", run.plan.recipe.description, ""]
    if page is not None:
        lines += [f"The whole report: [{page.name}]({page.as_uri()})", ""]
        create_link_artifact(
            link=page.as_uri(),
            link_text=f"report of {label}",
            key=_key("report-page", label),
            description=str(page),
        )
    lines += ["| stage | state | seconds | metrics |", "|---|---|---|---|"]
    lines += [_line(result) for result in run.results.values()]
    picture = _picture(run)
    if picture is not None:
        lines += [
            "",
            f"![{picture.name}](data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()})",
        ]
    create_markdown_artifact(
        key=_key("report", label), markdown="\n".join(lines), description=f"Report of {label}"
    )


class ProgressPage:
    """The progress of one stage; short stages never make one."""

    def __init__(self) -> None:
        self._id: UUID | None = None
        self._last = time.monotonic()

    def update(self, done: int, total: int, message: str) -> None:
        """Show ``done`` of ``total``, at most every few seconds."""
        moment = time.monotonic()
        if total <= 0 or moment - self._last < INTERVAL:
            return
        self._last = moment
        percent = 100.0 * done / total
        if self._id is None:
            made: Any = create_progress_artifact(progress=percent, description=f"{done}/{total} {message}")
            self._id = made
        else:
            update_progress_artifact(self._id, progress=percent, description=f"{done}/{total} {message}")


def _key(name: str, label: str) -> str:
    """Artifact keys are lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{name}-{label}".lower()).strip("-")


def _line(result: Result) -> str:
    metrics = ", ".join(f"{name} {_number(value)}" for name, value in list(result.metrics.items())[:8])
    seconds = result.seconds if result.state == "built" else result.built_seconds
    return f"| {result.stage} | {result.state} | {'' if seconds is None else f'{seconds:.1f}'} | {metrics} |"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _picture(run: Run) -> Path | None:
    """The first picture of the report artifact that is small enough."""
    for row in reversed(run.plan.rows):
        if row.kind == "report" and run.results[row.stage].digest is not None:
            found = sorted(run.artifact(row.stage).path.rglob("*.png"))
            return next((path for path in found if path.stat().st_size <= LARGEST_PICTURE), None)
    return None
