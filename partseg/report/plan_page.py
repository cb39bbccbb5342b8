"""What a run would do, as one self-contained page: the graph, what is missing, and every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from partseg.files import write_file
from partseg.report.graph_svg import StageLike, graph_svg
from partseg.report.html import templates

STATES = {
    "cached": "in the store",
    "run": "will run",
    "maybe": "will run if what it is made from changes",
    "blocked": "waits for something that is missing",
    "skipped": "not selected",
}


def write_plan_picture(destination: Path, nodes: Sequence[StageLike]) -> None:
    """Write the graph as an SVG file; it appears complete or not at all."""
    write_file(destination, graph_svg(nodes, alone=True).encode())


def write_plan_page(
    destination: Path,
    *,
    title: str,
    description: str,
    stages: Sequence[Mapping[str, Any]],
    nodes: Sequence[StageLike],
    outlook: Mapping[str, Any],
) -> None:
    """Write one HTML file; it appears complete or not at all.

    Args:
        destination: the file.
        title: the recipe and its profile.
        description: of the recipe.
        stages: the rows of the plan as plain data, in the order they would run; sizes are words.
        nodes: what is drawn of them.
        outlook: the fields of :class:`pipelines.cost.Outlook`, with sizes as words; ``enough``, whether there
            is room; and ``summary``, all of it in lines of words.
    """
    present = {stage["state"] for stage in stages}
    html = (
        templates()
        .get_template("plan.html.j2")
        .render(
            title=title,
            description=description,
            stages=stages,
            states={state: words for state, words in STATES.items() if state in present},
            counts={state: sum(stage["state"] == state for stage in stages) for state in present},
            graph=Markup(graph_svg(nodes)),
            outlook=outlook,
        )
    )
    write_file(destination, html.encode())
