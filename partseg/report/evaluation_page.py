"""One self-contained page of an evaluation: numbers, intervals, errors, curves, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from partseg.evaluation.assess import Assessed, open_maps, read
from partseg.evaluation.average_precision import RECALLS
from partseg.evaluation.forms import find
from partseg.evaluation.worst_images import WorstImage, worst_images
from partseg.files import write_file
from partseg.layout import Dataset
from partseg.report import evaluation_tables as tables
from partseg.report.curves_svg import Line, chart_svg
from partseg.report.evaluation_pictures import (
    COLOURS,
    InstancePictures,
    MapPictures,
    Panel,
    panoptic_maps,
    part_maps,
    places_of,
    semantic_maps,
)
from partseg.report.html import templates

WORST = 9
"""Images that are drawn of each evaluation that is."""


def write_evaluation_page(
    content: Mapping[str, Any],
    items: Sequence[Assessed],
    dataset: Dataset,
    split: str,
    predictions: Path,
    destination: Path,
    *,
    classes: Any = None,
    ids: Any = None,
) -> None:
    """Write one HTML file.

    Args:
        content: what :func:`partseg.evaluation.assessment.assessment` gave.
        items: the evaluations that it describes; the worst images of the first are drawn.
        dataset: opened with the folder of its photos, without which images are blank.
        split: name of the split.
        predictions: the evaluated files.
        destination: the file; it appears complete or not at all.
        classes: as in :func:`partseg.evaluation.assess.assess`.
        ids: as there.
    """
    first = items[0]
    pictures = _pictures(first, dataset, split, predictions, classes, ids)
    keys = dataset.split(split).batch("images")["source_key"].to_pylist()
    places = places_of(dataset.split(split))
    worst = [
        {
            "name": keys[places[image.image_id]],
            "text": _text(image),
            "panels": _panels(pictures, image),
        }
        for image in worst_images(first, WORST)
    ]
    html = (
        templates()
        .get_template("evaluation.html.j2")
        .render(
            title=f"{content['dataset']} {content['split']}",
            content=content,
            evaluations=[_section(item) for item in content["evaluations"]],
            cards=_cards(content),
            worst=worst,
            is_instances=first.is_instances,
            legend=_legend(first),
        )
    )
    write_file(destination, html.encode())


def _legend(item: Assessed) -> list[tuple[str, str]]:
    """What the colours of objects and parts mean, and how a style sheet calls them."""
    if not item.is_instances:
        return []
    if item.state.settings.details:
        names = {name: name for name in COLOURS if name != "missed"} | {"background": "background, or missed"}
    else:
        names = {"right": "right", "background": "wrong, or missed"}
    return [(text, f"rgb{COLOURS[name]}") for name, text in names.items()]


def _cards(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first numbers of every evaluation."""
    cards = []
    for item in content["evaluations"]:
        for name, value in list(item["metrics"].items())[: 2 if len(content["evaluations"]) > 1 else 4]:
            interval, gap = item["intervals"].get(name), item["differences"].get(name)
            foot = item["protocol"]["name"]
            if interval:
                foot = f"{tables.between(interval['low'], interval['high'])} in 95 of 100 samples"
            cards.append(
                {
                    "label": name,
                    "value": tables.percent(value),
                    "change": gap,
                    "change_text": tables.points(gap["value"]) if gap else "",
                    "foot": foot,
                }
            )
    return cards


def _section(item: Mapping[str, Any]) -> dict[str, Any]:
    lines = [
        Line(name=f"overlap {curve['overlap']}", x=tuple(RECALLS.tolist()), y=tuple(curve["precision"]))
        for curve in item["curves"]
    ]
    return {
        "name": item["name"],
        "protocol": item["protocol"],
        "images": item["images"],
        "notes": item["result"].get("notes", ()),
        "headline": tables.headline(item),
        "comparison": tables.comparison(item),
        "errors": tables.errors(item),
        "sizes": tables.sizes(item),
        "classes": tables.classes(item),
        "confusion": [tables.confusion(part) for part in item["confusion"]],
        "curves": Markup(chart_svg(lines, "Precision over recall", "recall")) if lines else None,
        "lines": [line.name for line in lines],
    }


def _pictures(
    item: Assessed, dataset: Dataset, split: str, path: Path, classes: Any, ids: Any
) -> InstancePictures | MapPictures:
    found, reader = find(path, dataset, split), dataset.split(split)
    if item.is_instances:
        names = {category.category_id: category.name for category in dataset.categories}
        return InstancePictures(item, reader, read(found, dataset, split, ids), names)
    truth, files = open_maps(dataset, split, found, classes, ids)
    kinds: dict[str, Any] = {"panoptic": panoptic_maps, "parts": part_maps, "semantic": semantic_maps}
    maps, labels = kinds[found.form](truth, files)
    return MapPictures(reader, maps, labels)


def _panels(pictures: InstancePictures | MapPictures, image: WorstImage) -> list[Panel]:
    return pictures.panels(image.image_id)


def _text(image: WorstImage) -> str:
    if image.missed is None:
        return f"{100 * image.badness:.1f} % of the pixels are wrong"
    return f"{image.missed} missed, {image.wrong} wrong"
