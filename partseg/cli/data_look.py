"""``partseg data stats`` and ``partseg data show``: look at datasets."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.tables import console, print_table, size_text
from partseg.errors import LayoutError

if TYPE_CHECKING:
    from partseg.layout import Category, Dataset, Split

MOST_CATEGORIES = 60
"""Categories printed by ``stats``; JSON has all."""

Folder = Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="A folder with a dataset.json.")]


class Kind(StrEnum):
    """What ``show --only`` draws."""

    OBJECT = "object"
    PART = "part"
    STUFF = "stuff"


def stats(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Count images, objects, parts and labels of a dataset, and say how large they are."""
    from partseg.layout import Dataset
    from partseg.layout.statistics import statistics

    dataset = Dataset.open(folder)
    content = statistics(dataset)
    if as_json:
        print(json.dumps(content, indent=2))
        return
    columns = ["source_records", "images", "dropped", "objects", "parts", "stuff", "masks"]
    print_table(
        ["split", *(column.replace("_", " ") for column in columns), "size"],
        [
            [name, *(f"{row[column]:,}" for column in columns), size_text(row["bytes"])]
            for name, row in content["splits"].items()
        ],
    )
    print_table(
        ["split", "image size", "annotations per image", "parts per object", "no annotations", "labels"],
        [
            [
                name,
                f"{_middle(row['width'])} x {_middle(row['height'])}",
                _range(row["annotations_per_image"]),
                _range(row["parts_per_object"]),
                f"{row['images_without_annotations']:,}",
                ", ".join(
                    f"{item['labels']:,} {key}" for key, item in row["labels"].items() if item["labels"]
                ),
            ]
            for name, row in content["splits"].items()
        ],
    )
    if content["findings"]:
        print_table(["finding", "records"], [[key, f"{n:,}"] for key, n in content["findings"].items()])
    _print_categories(content, [category.name for category in dataset.categories])


def show(
    folder: Folder,
    split: Annotated[str, typer.Option("--split", help="Name of a split.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    raw: Annotated[
        Path | None,
        typer.Option("--raw", help="Folder with the raw files of the images; without it they are grey."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Record name, or position in the split. (Default: the first.)")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--sheet", metavar="ROWSxCOLUMNS", help="Many images in one picture.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only images that have this category.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Pick images at random; the same seed picks the same.")
    ] = None,
    only: Annotated[Kind | None, typer.Option(help="Draw only these. (Default: all.)")] = None,
) -> None:
    """Draw the objects and parts of an image, or of many.

    Objects have outlines and names, parts are filled in shades of their object's colour.
    """
    from partseg.files import replacing_file
    from partseg.layout import Dataset
    from partseg.report.pictures import sheet, with_title

    dataset = Dataset.open(folder, image_root=raw)
    reader = dataset.split(split)
    rows, columns = (1, 1) if grid is None else _grid(grid)
    chosen = [_find(reader, image)] if image is not None else _choose(dataset, reader, category, seed)
    chosen = chosen[: rows * columns]
    kinds = [only.value] if only else [kind.value for kind in Kind]
    categories = {item.category_id: item for item in dataset.categories}
    pictures = [_picture(reader, index, categories, kinds) for index in chosen]
    result = with_title(*pictures[0]) if grid is None else sheet(pictures, min(columns, len(pictures)))
    with replacing_file(out) as temporary:
        result.save(temporary, "PNG")
    what = pictures[0][1] if len(pictures) == 1 else f"{len(pictures)} images"
    console().print(f"{out}: {what}", soft_wrap=True)


def _picture(split: Split, index: int, categories: dict[int, Category], kinds: list[str]) -> tuple[Any, str]:
    from partseg.report.pictures import grey, scene, title

    record = split[index]
    photo = grey(record) if split.image_root is None else split.read_image(index)
    return scene(photo, record, categories, kinds=kinds), title(record, categories)


def _choose(dataset: Dataset, split: Split, category: str | None, seed: int | None) -> list[int]:
    """Images that may be shown, in the order of the split or a random one."""
    import numpy as np

    rows = np.arange(len(split))
    if category is not None:
        wanted = dataset.category(category).category_id
        images = split.batch("images")
        hits = np.repeat(rows, images["ann_count"].to_numpy())[
            split.batch("annotations")["category_id"].to_numpy() == wanted
        ]
        labels = images["pos_category_ids"]
        labelled = np.repeat(rows, np.diff(labels.offsets.to_numpy()))[labels.flatten().to_numpy() == wanted]
        rows = np.unique(np.concatenate([hits, labelled]))
    if not len(rows):
        what = "images" if category is None else f"image with {category}"
        raise LayoutError(f"no {what}", where=f"{split.folder}, split {split.name}")
    if seed is not None:
        rows = np.random.default_rng(seed).permutation(rows)
    return [int(row) for row in rows]


def _find(split: Split, image: str) -> int:
    keys = split.batch("images")["source_key"].to_pylist()
    if image in keys:
        return int(keys.index(image))
    if image.isdigit() and int(image) < len(keys):
        return int(image)
    raise LayoutError(f"no image {image!r}", where=f"split {split.name}", fix=f"it has {len(keys)} images")


def _grid(text: str) -> tuple[int, int]:
    rows, times, columns = text.lower().partition("x")
    if not times or not (rows.isdigit() and columns.isdigit()) or not int(rows) * int(columns):
        raise LayoutError(f"--sheet {text} is not understood", fix="write --sheet 4x6 for 4 rows of 6 images")
    return int(rows), int(columns)


def _print_categories(content: dict[str, Any], order: list[str]) -> None:
    """The categories with the most annotations, in the order of the category table."""
    names = list(content["splits"])
    counts = {name: sum(content["categories"][split].get(name, 0) for split in names) for name in order}
    largest = sorted((name for name in order if counts[name]), key=lambda name: -counts[name])
    used = [name for name in order if name in set(largest[:MOST_CATEGORIES])]
    print_table(
        ["category", *names, "median area"],
        [
            [
                name,
                *(f"{content['categories'][split].get(name, 0):,}" for split in names),
                _median_area(content, name),
            ]
            for name in used
        ],
    )
    if len(largest) > len(used):
        print(f"and {len(largest) - len(used)} rarer categories; --json has all")


def _median_area(content: dict[str, Any], name: str) -> str:
    sizes = content["category_sizes"].values()
    return next((f"{split[name]['median_area']:,.0f} px" for split in sizes if name in split), "")


def _middle(spread: dict[str, float]) -> str:
    return f"{spread['median']:.0f}" if spread else "-"


def _range(spread: dict[str, float]) -> str:
    return f"{spread['mean']:.1f}, at most {spread['max']:.0f}" if spread else "-"
