"""A sheet of parsed images: as one picture, or as a page that also ranks all parts and base images."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image, ImageDraw, ImageFont

from partseg.evaluation.parsed_parts import ParsedPart
from partseg.files import replacing_file, write_file
from partseg.report.evaluation_tables import NumberTable
from partseg.report.html import picture_uri, templates
from partseg.report.parse_story import Story
from partseg.report.pictures import fitting

_PAPER, _INK, _SOFT = (255, 255, 255), (32, 32, 36), (98, 104, 110)
_GAP, _HEAD, _LINE = 12, 54, 24  # pixels
_QUALITY = 86


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """Some images under a heading."""

    title: str
    stories: Sequence[Story]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParsedSplit:
    """What a parse stage wrote.

    Attributes:
        keys: source keys of the parsed images, in the order of their rows.
        nothing_found: images in which no part was found.
        parts: all parts.
        base_names: name of each base image that lent any.
    """

    keys: Sequence[str]
    nothing_found: int
    parts: Sequence[ParsedPart]
    base_names: Mapping[int, str]

    def by_confidence(self, path: str) -> list[str]:
        """Keys of the images that a path found parts in, by their mean confidence, the highest first."""
        found: dict[int, list[float]] = defaultdict(list)
        for part in self.parts:
            if part.path == path:
                found[part.image].append(part.confidence)
        return [self.keys[image] for image in sorted(found, key=lambda image: (-fmean(found[image]), image))]


def write_picture(sections: Sequence[Section], destination: Path) -> None:
    """Write one PNG: a row of panels for each image.

    Args:
        sections: at least one image in all.
        destination: the file; it appears complete or not at all.
    """
    with replacing_file(destination) as temporary:
        strip([story for section in sections for story in section.stories]).save(temporary, "PNG")


def strip(stories: Sequence[Story]) -> Image.Image:
    """The panels of each image side by side under two lines of text, image below image."""
    widths = [sum(panel.picture.width + _GAP for panel in story.panels) + _GAP for story in stories]
    heights = [
        _HEAD + max(panel.picture.height for panel in story.panels) + _LINE + _GAP for story in stories
    ]
    page = Image.new("RGB", (max(widths), sum(heights)), _PAPER)
    pen, top = ImageDraw.Draw(page), 0
    big, small = ImageFont.load_default(size=18), ImageFont.load_default(size=14)
    for story, height in zip(stories, heights, strict=True):
        room = page.width - 2 * _GAP
        pen.text((_GAP, top + 20), fitting(story.heading, big, room), fill=_INK, font=big, anchor="lm")
        pen.text((_GAP, top + 42), fitting(story.text, small, room), fill=_SOFT, font=small, anchor="lm")
        left = _GAP
        for panel in story.panels:
            page.paste(panel.picture, (left, top + _HEAD))
            text = fitting(panel.title, small, panel.picture.width)
            place = (left, top + _HEAD + panel.picture.height + _LINE / 2)
            pen.text(place, text, fill=_SOFT, font=small, anchor="lm")
            left += panel.picture.width + _GAP
        top += height
    return page


def write_sheet(
    sections: Sequence[Section], parsed: ParsedSplit | None, name: str, destination: Path
) -> None:
    """Write one HTML file without outside files.

    Args:
        sections: images to draw.
        parsed: the whole parse, for the tables; None where the stage has not run.
        name: of the parse.
        destination: the file; it appears complete or not at all.
    """
    tables = [] if parsed is None else [_labels(parsed), _parts(parsed), *_lenders(parsed)]
    html = (
        templates()
        .get_template("parse_sheet.html.j2")
        .render(
            name=name,
            cards=[] if parsed is None else _cards(parsed),
            sections=[
                {
                    "title": section.title,
                    "stories": [
                        {
                            "heading": story.heading,
                            "text": story.text,
                            "width": sum(_width(panel.picture) for panel in story.panels),
                            "panels": [
                                {
                                    "title": panel.title,
                                    "uri": _uri(panel.picture),
                                    "width": _width(panel.picture),
                                }
                                for panel in story.panels
                            ],
                        }
                        for story in section.stories
                    ],
                }
                for section in sections
                if section.stories
            ],
            tables=tables,
        )
    )
    write_file(destination, html.encode())


def _width(picture: Image.Image) -> float:
    """Width by height: panels beside each other are equally high."""
    return round(picture.width / picture.height, 3)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return picture_uri(buffer.getvalue())


def _cards(parsed: ParsedSplit) -> list[dict[str, str]]:
    confidences = [part.confidence for part in parsed.parts]
    images, nothing = len(parsed.keys), parsed.nothing_found
    return [
        {
            "label": "Images",
            "value": f"{images:,}",
            "foot": f"of {images + nothing:,} looked at; nothing was found in {nothing:,}",
        },
        {
            "label": "Parts",
            "value": f"{len(confidences):,}",
            "foot": f"{len(confidences) / images:.1f} per image" if images else "",
        },
        {
            "label": "Mean confidence",
            "value": f"{fmean(confidences):.2f}" if confidences else "–",
            "foot": f"from {min(confidences):.2f} to {max(confidences):.2f}" if confidences else "",
        },
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """A table of the page, the most certain rows first."""

    title: str
    about: str
    table: NumberTable


def _labels(parsed: ParsedSplit) -> _Ranked:
    table = _ranking("label", parsed, lambda part: part.label)
    return _Ranked(title="Labels", about="By the label of the image.", table=table)


def _parts(parsed: ParsedSplit) -> _Ranked:
    table = _ranking("part", parsed, lambda part: part.name)
    return _Ranked(title="Parts", about="From the most to the least certain.", table=table)


def _lenders(parsed: ParsedSplit) -> list[_Ranked]:
    """Who lent how much; nothing where nobody did."""
    if not any(part.base_image_id is not None for part in parsed.parts):
        return []

    def name(part: ParsedPart) -> str:
        number = part.base_image_id
        return "" if number is None else parsed.base_names.get(number, f"image {number}")

    table = _ranking("base image", parsed, name, similar=True)
    by_images = sorted(
        zip(table.rows, table.values, strict=True), key=lambda row: (-float(row[1][2] or 0), row[0][0])
    )
    return [
        _Ranked(
            title="Base images",
            about="Those that lent to most images first. What lends to images of every kind may just be "
            "alike to none.",
            table=NumberTable(
                columns=table.columns,
                rows=tuple(row for row, _ in by_images),
                values=tuple(values for _, values in by_images),
            ),
        )
    ]


def _ranking(
    what: str, parsed: ParsedSplit, key: Callable[[ParsedPart], str], *, similar: bool = False
) -> NumberTable:
    """Counts and confidence of the parts of each key that is not empty."""
    groups: dict[str, list[ParsedPart]] = defaultdict(list)
    for part in parsed.parts:
        if name := key(part):
            groups[name].append(part)
    ranked = sorted(groups.items(), key=lambda pair: (-fmean(p.confidence for p in pair[1]), pair[0]))
    rows: list[tuple[str, ...]] = []
    values: list[tuple[float | None, ...]] = []
    for name, parts in ranked:
        confidences = [part.confidence for part in parts]
        images = len({part.image for part in parts})
        cosines = [part.base_similarity for part in parts if part.base_similarity is not None]
        numbers: list[tuple[str, float | None]] = [
            (f"{len(parts):,}", len(parts)),
            (f"{images:,}", images),
            *((f"{v:.2f}", v) for v in (fmean(confidences), min(confidences), max(confidences))),
        ]
        if similar:
            numbers.append((f"{fmean(cosines):.2f}", fmean(cosines)) if cosines else ("–", None))
        rows.append((name, *(text for text, _ in numbers)))
        values.append((None, *(value for _, value in numbers)))
    columns: tuple[str, ...] = (what, "parts", "images", "mean confidence", "lowest", "highest")
    if similar:
        columns = (*columns, "similarity")
    return NumberTable(columns=columns, rows=tuple(rows), values=tuple(values))
