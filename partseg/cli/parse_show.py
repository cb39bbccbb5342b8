"""``partseg parse show``: how images got their part labels."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from partseg.cli import options
from partseg.cli.bar import Bar
from partseg.cli.tables import console
from partseg.errors import LayoutError, PartsegError

if TYPE_CHECKING:
    from partseg.cli.parse_inputs import ParseStage
    from partseg.layout import Split
    from partseg.report.parse_sheet import ParsedSplit, Section

FEW = {".png": 2, ".html": 6}
"""Images of each end of each ranking that are drawn if nobody says which."""

NAMES = {"transfer": "transferred", "detector": "detected"}


def show(
    recipe: options.RecipeName,
    stage: Annotated[str, typer.Argument(help="A parse stage of the recipe.")],
    output: Annotated[Path, typer.Option(metavar="FILE.png|FILE.html", help="A picture, or a page.")],
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Draw this image: its record name or file name."),
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Draw the N most certain images of each path.")
    ] = None,
    least: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Draw the N least certain images of each path.")
    ] = None,
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    set_: options.Set = None,
) -> None:
    """Draw how images got their part labels, step by step.

    An image is as certain as its parts are on average; images that parts were transferred to and images that
    the detector looked at are ranked apart. A page also ranks labels, parts and base images.

    With --image, the stage need not have run: what it is made from is enough.
    """
    from partseg.cli.parse_inputs import parse_stage
    from partseg.report.parse_sheet import write_picture, write_sheet

    if output.suffix not in FEW:
        raise PartsegError(f"--output {output} is neither a picture nor a page", fix="name it .png or .html")
    opened = parse_stage(recipe, stage, profile=profile, raw=raw, store=store, sets=set_)
    if image and most is None and least is None:
        most = least = 0
    few = FEW[output.suffix]
    most, least = few if most is None else most, few if least is None else least
    parsed = _parsed(opened) if most or least or opened.is_parsed else None
    sections = _sections(opened, image or (), parsed, most, least)
    drawn = sum(len(section.stories) for section in sections)
    if not drawn:
        raise PartsegError("there is nothing to draw", fix="name an image: --image KEY")
    if output.suffix == ".png":
        write_picture(sections, output)
    else:
        name = f"{opened.plan.recipe.label} {stage}"
        write_sheet(sections, parsed, name, output)
    console().print(f"{output}: {drawn} image{'s' * (drawn != 1)} of {stage}", soft_wrap=True, markup=False)


def _parsed(stage: ParseStage) -> ParsedSplit:
    """What the stage wrote."""
    from partseg.evaluation.parsed_parts import parsed_parts, without_parts
    from partseg.report.parse_sheet import ParsedSplit

    dataset = stage.parsed()
    split = dataset.split(stage.params.split)
    names: dict[int, str] = {}
    if stage.params.base is not None:
        images = stage.dataset(stage.params.base).split(stage.params.base_split).batch("images")
        names = dict(zip(images["image_id"].to_pylist(), images["source_key"].to_pylist(), strict=True))
    return ParsedSplit(
        keys=tuple(split.batch("images")["source_key"].to_pylist()),
        nothing_found=len(without_parts(split)),
        parts=parsed_parts(split, dataset.categories),
        base_names=names,
    )


def _sections(
    stage: ParseStage, keys: Sequence[str], parsed: ParsedSplit | None, most: int, least: int
) -> list[Section]:
    """The images that are asked for, each drawn once."""
    from partseg.parsing.parser import Parser
    from partseg.report.parse_sheet import Section
    from partseg.report.parse_story import Story, tell
    from pipelines.inputs import open_dataset
    from pipelines.parse import names_written, open_parser

    ends: dict[str, Sequence[str]] = {"Images": keys}
    for path, name in NAMES.items():
        ranked = [] if parsed is None else parsed.by_confidence(path)
        ends[f"The most certain, {name}"] = ranked[:most]
        ends[f"The least certain, {name}"] = ranked[most:][::-1][:least]
    inputs, params = stage.inputs(), stage.params
    images = open_dataset(inputs[params.images])
    split = images.split(params.split)
    wanted = {title: [find(split, key) for key in names] for title, names in ends.items()}
    base = open_dataset(inputs[params.base]) if params.base is not None else None
    labels = {category.category_id: category.name for category in images.categories}
    parser = open_parser(params, inputs).parser
    assert isinstance(parser, Parser)
    told = partial(
        tell,
        parser,
        split,
        labels=labels,
        written={c.category_id: c.name for c in names_written(params, base, list(labels.values()))},
        base=None if base is None else base.split(params.base_split),
        base_categories={} if base is None else {c.category_id: c for c in base.categories},
    )
    total, stories = sum(map(len, wanted.values())), dict[str, list[Story]]()
    with Bar("images drawn") as bar:
        for title, rows in wanted.items():
            stories[title] = []
            for row in rows:
                stories[title].append(told(row))
                bar.update(sum(map(len, stories.values())), total)
    return [Section(title=title, stories=found) for title, found in stories.items() if found]


def find(split: Split, key: str) -> int:
    """The row of an image, by its source key, its file name, or that without folder and suffix.

    Raises:
        LayoutError: there is none, or several.
    """
    images = split.batch("images")
    keys, files = images["source_key"].to_pylist(), images["file_name"].to_pylist()
    for names in (keys, files, [PurePosixPath(name).stem for name in files]):
        rows = [row for row, name in enumerate(names) if name == key]
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise LayoutError(
                f"{len(rows)} images are called {key}",
                where=f"split {split.name}",
                fix=f"say {keys[rows[0]]}",
            )
    close = get_close_matches(key, keys, n=1, cutoff=0)
    raise LayoutError(
        f"no image {key!r}",
        where=f"split {split.name}",
        fix=f"it has {len(keys):,} images, such as {close[0]}" if close else "it has no images",
    )
