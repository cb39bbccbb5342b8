"""Tables of the audit of a parse, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from partseg.evaluation.parse_audit import AuditedImages, ParseAudit
from partseg.evaluation.parse_quality import Cut, Tally
from partseg.report.evaluation_tables import NumberTable

COLUMNS = (
    ("parsed", "parsed parts"),
    ("true", "true parts"),
    (
        "precision",
        "share of the parsed parts that are right: box on a free true part of that name, IoU ≥ 0.5",
    ),
    ("recall", "share of the true parts that were found"),
    ("name right", "of the boxes on any true part, the share with its name"),
    ("mask IoU", "mean overlap of the masks of right parts with the true ones"),
    ("again", "share of the parsed parts that lie on a part of their name which another one has found"),
    ("wrong name", "share on a part of another name"),
    ("beside", "share on no true part at all"),
)
"""Names and meanings of the columns of most tables."""

_MISTAKES = 3  # of them say what is wrong with what is not right


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def images_text(images: AuditedImages) -> str:
    """How many images are compared, and what became of the others."""
    looked_at = images.parsed + images.nothing_found
    text = f"{images.known:,} of {looked_at:,} parsed images have known parts"
    if images.known_nothing_found:
        text += f", {images.known_nothing_found:,} of them with nothing found"
    if images.not_in_truth:
        text += f"; {images.not_in_truth:,} are not in the truth"
        text += f" ({images.other_size:,} have another size there)" if images.other_size else ""
    if images.never_parsed:
        text += f"; {images.never_parsed:,} images of the truth were not parsed"
    return text


def overview(audit: ParseAudit) -> NumberTable:
    """Everything, base and novel, and what each path found."""
    quality = audit.quality
    rows = {"all": quality.overall, **quality.groups}
    if len(quality.paths) > 1 or len(quality.groups) < 2:
        rows |= {f"by {path}": tally for path, tally in quality.paths.items()}
    return _table("", rows)


def labels(audit: ParseAudit) -> NumberTable:
    """One row per label, those of the lowest precision first."""
    return _table("label", _worst_first(audit.quality.labels))


def parts(audit: ParseAudit) -> NumberTable:
    """One row per name of a part with its group, those of the lowest precision first."""
    quality = audit.quality
    table = _table("part", _worst_first(quality.parts))
    if not quality.group_of:
        return table
    return NumberTable(
        columns=(*table.columns, "group"),
        rows=tuple((*row, quality.group_of.get(row[0], "–")) for row in table.rows),
        values=tuple((*row, None) for row in table.values),
    )


def short(table: NumberTable) -> NumberTable:
    """A table for a terminal: without the kinds of mistakes."""
    mistakes = {name for name, _ in COLUMNS[-_MISTAKES:]}
    kept = [place for place, name in enumerate(table.columns) if name not in mistakes]
    return NumberTable(
        columns=tuple(table.columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        values=tuple(tuple(row[place] for place in kept) for row in table.values),
    )


def confusion(audit: ParseAudit, most: int) -> NumberTable | None:
    """The most frequent wrong names; None if there are none."""
    rows = audit.quality.confused[:most]
    if not rows:
        return None
    return NumberTable(
        columns=("true part", "called", "parts"),
        rows=tuple((true, parsed, f"{count:,}") for true, parsed, count in rows),
        values=tuple((None, None, float(count)) for *_, count in rows),
    )


def cuts(rows: Sequence[Cut]) -> NumberTable:
    """What thresholds of confidence would leave."""
    return NumberTable(
        columns=("min_confidence", "parts kept", "images kept", "precision", "recall"),
        rows=tuple(
            (
                f"{cut.confidence:.2f}" if cut.confidence else "none",
                f"{cut.kept:,}",
                f"{cut.images:,}",
                percent(cut.precision),
                percent(cut.recall),
            )
            for cut in rows
        ),
        values=tuple((cut.confidence, cut.kept, cut.images, cut.precision, cut.recall) for cut in rows),
    )


def cells(tally: Tally) -> list[tuple[str, float | None]]:
    """Text and value of each of :data:`COLUMNS`."""
    again, wrong, beside = (
        None if not tally.parsed else count / tally.parsed
        for count in (
            tally.named_right - tally.right,
            tally.on_parts - tally.named_right,
            tally.parsed - tally.on_parts,
        )
    )
    counts: list[tuple[str, float | None]] = [(f"{n:,}", float(n)) for n in (tally.parsed, tally.true)]
    shares = (tally.precision, tally.recall, tally.label_accuracy, tally.mask_iou, again, wrong, beside)
    return [*counts, *((percent(share), share) for share in shares)]


def _table(name: str, tallies: Mapping[str, Tally]) -> NumberTable:
    rows = {key: cells(tally) for key, tally in tallies.items()}
    return NumberTable(
        columns=(name, *(column for column, _ in COLUMNS)),
        rows=tuple((key, *(text for text, _ in row)) for key, row in rows.items()),
        values=tuple((None, *(value for _, value in row)) for row in rows.values()),
    )


def _worst_first(tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    def badness(item: tuple[str, Tally]) -> tuple[float, float, str]:
        name, tally = item
        return (tally.precision if tally.precision is not None else 2.0, tally.recall or 0.0, name)

    return dict(sorted(tallies.items(), key=badness))
