"""``partseg evaluate``: predictions against the ground truth of a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.bar import Bar
from partseg.cli.tables import console, print_table
from partseg.errors import PartsegError

if TYPE_CHECKING:
    from partseg.evaluation.assess import Assessed
    from partseg.layout import Dataset
    from partseg.report.evaluation_tables import NumberTable

MOST_CLASSES = 100
"""Lines of the table of classes; ``--out`` and ``--json`` have all."""

MOST_CONFUSED = 12
"""Lines of the table of parts taken for others; the matrices are in JSON and on the page."""

METRICS, PAGE = "metrics.json", "evaluation.html"
SAMPLES = 1000


class Kind(StrEnum):
    """What is scored."""

    PART = "part"
    OBJECT = "object"
    ALL = "all"


class Ids(StrEnum):
    """Whose ids predictions have."""

    SOURCE = "source"
    LAYOUT = "layout"
    VLPART = "vlpart"
    TRAIN = "train"


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="A folder with a dataset.json.")],
    predictions: Annotated[
        Path,
        typer.Option(
            metavar="FILE|DIR",
            help="A predictions.parquet, COCO results JSON, panoptic JSON with its PNGs, or a folder of "
            "panoptic-parts or semantic maps.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Name of a split.")] = "val",
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Predictions of another model: is it better or worse?"),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Whose rules; several times for separate columns. --protocols lists them. (Default: the one "
            "that suits the dataset.)",
        ),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Score these. (Default: what the protocol scores.)")
    ] = None,
    iou: Annotated[
        str | None,
        typer.Option(metavar="segm,bbox", help="Compare masks, boxes or both. (Default: what there is.)"),
    ] = None,
    ids: Annotated[
        Ids | None,
        typer.Option(
            help="Whose ids a results JSON has, or the values of semantic maps. (Default: those of `data "
            "export`; in maps 0, 1, 2, ... in the published order, train.)"
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Samples of the images for 95 % intervals. (Default: {SAMPLES} with --compare or --html.)",
        ),
    ] = None,
    errors: Annotated[
        bool,
        typer.Option("--errors", help="Split errors by kind, and show what parts are taken for; slower."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help=f"Folder for {METRICS}.")] = None,
    html: Annotated[
        bool, typer.Option("--html", help="With --out, also write a page with all of it; implies --errors.")
    ] = False,
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Folder with the raw files of the images, for --html.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Further processes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    protocols: Annotated[
        bool,
        typer.Option("--protocols", is_eager=True, callback=lambda shown: _list(shown), help="List them."),
    ] = False,
) -> None:
    """Evaluate predictions of objects, parts, segments or classes of pixels.

    The form of the predictions and the dataset decide which numbers there are. All are percentages.
    """
    del protocols
    from partseg.evaluation.assess import assess
    from partseg.evaluation.assessment import assessment
    from partseg.layout import Dataset

    if html and out is None:
        raise PartsegError("--html needs a folder", fix="name it: --out DIR")
    dataset = Dataset.open(folder, image_root=raw)
    options: dict[str, Any] = {
        "protocols": protocol or (),
        "classes": kind and kind.value,
        "iou_types": _iou(iou),
        "ids": ids and ids.value,
        "workers": workers,
    }
    with Bar("images") as bar:
        items = assess(dataset, split, predictions, **options, details=errors or html, report=bar)
        others = assess(dataset, split, compare, **options, report=bar) if compare else []
    samples = (SAMPLES if compare or html else 0) if bootstrap is None else bootstrap
    if compare and not samples:
        raise PartsegError("--compare needs samples", fix="leave out --bootstrap 0")
    content = assessment(
        items,
        about={
            "dataset": dataset.manifest.name,
            "split": split,
            "predictions": str(predictions),
            "compared": None if compare is None else str(compare),
        },
        other=others,
        samples=samples,
    )
    if out is not None:
        _write(content, items, dataset, predictions, options, out, html)
    if as_json:
        import orjson

        print(orjson.dumps(content).decode())
    else:
        _print(content)
        if out is not None:
            print(f"written: {out / METRICS}" + (f" and {out / PAGE}" if html else ""))


def _list(shown: bool) -> None:
    if shown:
        from partseg.evaluation.forms import MEANING
        from partseg.evaluation.protocols import PROTOCOLS

        print_table(
            ["protocol", "predictions", "meaning"],
            [
                [
                    name,
                    "any" if len(item.forms) == len(MEANING) else ", ".join(item.forms),
                    item.meaning,
                ]
                for name, item in PROTOCOLS.items()
            ],
        )
        raise typer.Exit


def _iou(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    kinds = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not set(kinds) <= {"segm", "bbox"}:
        raise PartsegError(f"--iou {text} is not understood", fix="write segm, bbox or segm,bbox")
    return kinds


def _write(
    content: dict[str, Any],
    items: list[Assessed],
    dataset: Dataset,
    predictions: Path,
    options: dict[str, Any],
    out: Path,
    html: bool,
) -> None:
    import orjson

    from partseg.files import write_file

    write_file(out / METRICS, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    if html:
        from partseg.report.evaluation_page import write_evaluation_page

        write_evaluation_page(
            content,
            items,
            dataset,
            content["split"],
            predictions,
            out / PAGE,
            classes=options["classes"],
            ids=options["ids"],
        )


def _print(content: dict[str, Any]) -> None:
    from partseg.report import evaluation_tables as tables

    for item in content["evaluations"]:
        protocol = item["protocol"]
        console().print(
            f"{item['name']}, {content['dataset']} {content['split']}, {item['images']:,} images, "
            f"protocol {protocol['name']}: {protocol['meaning']}",
            soft_wrap=True,
            markup=False,
        )
        for note in item["result"].get("notes", ()):
            print(f"note: {note}")
        _print_table(tables.comparison(item) or tables.headline(item))
        classes = tables.classes(item, with_errors=False)
        if classes is not None:
            _print_table(classes, MOST_CLASSES)
        _print_table(tables.errors(item))
        _print_table(tables.confused(item, MOST_CONFUSED))
    for item in content["evaluations"]:
        name, row = next(iter(item["differences"].items()), (None, None))
        if row is not None:
            print(sentence(str(name), row))


def sentence(name: str, row: dict[str, Any]) -> str:
    """What a comparison says about one number."""
    from partseg.report.evaluation_tables import between, points

    verdict = "real" if row["is_real"] else "not more than chance"
    return (
        f"{name}: the second model is {points(row['value'])} points apart "
        f"({between(row['low'], row['high'], signed=True)}), which is {verdict}: it is better in "
        f"{100 * row['better']:.1f} % of the samples of images"
    )


def _print_table(table: NumberTable | None, most: int | None = None) -> None:
    if table is None:
        return
    print_table(table.columns, table.rows[:most], last_wraps=False)
    if most is not None and len(table.rows) > most:
        print(f"and {len(table.rows) - most:,} more classes; --json has all")
