"""One self-contained page of the audit of a parse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from partseg.evaluation.parse_audit import ParseAudit
from partseg.evaluation.parse_quality import Cut
from partseg.files import write_file
from partseg.report import parse_tables as tables
from partseg.report.curves_svg import Line, chart_svg
from partseg.report.html import templates

MOST_CONFUSED = 60


def write_audit_page(audit: ParseAudit, parsed: str, truth: str, destination: Path) -> None:
    """Write one HTML file.

    Args:
        audit: what was found.
        parsed: name of the parse.
        truth: name of what is true.
        destination: the file; it appears complete or not at all.
    """
    quality = audit.quality
    html = (
        templates()
        .get_template("parse_audit.html.j2")
        .render(
            parsed=parsed,
            truth=truth,
            summary=f"{tables.images_text(audit.images)}.",
            other_objects=quality.other_objects,
            cards=_cards(audit),
            meanings=tables.COLUMNS[2:],
            overview=tables.overview(audit),
            cuts=[
                {"name": path, "table": tables.cuts(rows), "chart": _chart(rows)}
                for path, rows in quality.cuts.items()
                if rows
            ],
            labels=tables.labels(audit),
            parts=tables.parts(audit),
            confusion=tables.confusion(audit, MOST_CONFUSED),
        )
    )
    write_file(destination, html.encode())


def _cards(audit: ParseAudit) -> list[dict[str, str]]:
    tally = audit.quality.overall
    cards = [
        ("Precision", tally.precision, f"{tally.right:,} of {tally.parsed:,} parsed parts are right"),
        ("Recall", tally.recall, f"{tally.right:,} of {tally.true:,} true parts are found"),
        (
            "Name right",
            tally.label_accuracy,
            f"of {tally.on_parts:,} boxes that lie on a true part of any name",
        ),
        ("Mask IoU", tally.mask_iou, f"mean of {tally.masks:,} right parts with masks"),
    ]
    return [
        {"label": name, "value": tables.percent(value), "foot": foot}
        for name, value, foot in cards
        if value is not None
    ]


def _chart(rows: tuple[Cut, ...]) -> Any:
    # without a threshold; what the lowest one leaves is nearly the same, and 0 is far away from it
    known = [cut for cut in rows[1:] if cut.precision is not None and cut.recall is not None]
    if len(known) < 2:
        return None
    at = tuple(cut.confidence for cut in known)
    lines = [
        Line(name="precision", x=at, y=tuple(float(cut.precision or 0) for cut in known)),
        Line(name="recall", x=at, y=tuple(float(cut.recall or 0) for cut in known)),
    ]
    return Markup(chart_svg(lines, "Precision and recall by confidence", "min_confidence"))
