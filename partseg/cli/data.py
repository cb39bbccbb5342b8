"""``partseg data``: convert raw data, look at datasets and export them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.tables import console, print_table, size_text
from partseg.errors import LayoutError, PartsegError, SourceError

if TYPE_CHECKING:
    from partseg.layout import Dataset, Split

app = typer.Typer(help="Convert raw data, look at datasets and export them.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="A folder with a dataset.json.")]
SplitName = Annotated[str, typer.Option("--split", help="Name of a split.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Format(StrEnum):
    """File formats of ``export``."""

    COCO = "coco"


class Compat(StrEnum):
    """Whose file ``export`` reproduces."""

    VLPART = "vlpart"


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="pascal_part or imagenet_folder.")],
    raw: Annotated[Path, typer.Option("--raw", help="Folder with the raw files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the dataset; must not exist yet.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Setting of the source; VALUE is YAML."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 reads in this one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Convert raw data into a dataset in the common layout."""
    from partseg.datasets.convert import convert as run

    report = _Bar()
    try:
        counts = run(source, raw, out, options=_options(option or []), workers=workers, report=report)
    finally:
        report.close()
    if as_json:
        print(json.dumps(counts))
    else:
        numbers = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        console().print(f"{out}: {numbers}", soft_wrap=True)


@app.command()
def export(
    folder: Folder,
    split: SplitName,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    file_format: Annotated[Format, typer.Option("--format", help="File format.")] = Format.COCO,
    compat: Annotated[
        Compat | None, typer.Option(help="Reproduce the file of this project, quirks included.")
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Leave out novel categories.")] = False,
    single_object: Annotated[
        bool, typer.Option("--single-object", help="Only images with exactly one object.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one split as a COCO JSON file."""
    from partseg.layout import coco

    counts = coco.export(
        _open(folder),
        split,
        out,
        compat="vlpart" if compat is Compat.VLPART else None,
        base_only=base_only,
        single_object=single_object,
    )
    if as_json:
        print(json.dumps({"format": file_format.value, **counts}))
    else:
        numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
        console().print(f"{out}: {numbers}", soft_wrap=True)


@app.command()
def stats(folder: Folder, as_json: AsJson = False) -> None:
    """Count images, objects, parts and findings of a dataset."""
    dataset = _open(folder)
    manifest = dataset.manifest
    content: dict[str, Any] = {
        "name": manifest.name,
        "format_version": manifest.format_version,
        "splits": {
            name: {
                "source_records": entry.source_records,
                "images": entry.images.rows,
                "dropped": entry.dropped,
                "objects": entry.objects,
                "parts": entry.parts,
                "bytes": entry.images.bytes + entry.annotations.bytes + entry.findings.bytes,
            }
            for name, entry in manifest.splits.items()
        },
        "findings": manifest.findings,
        "categories": {name: _category_counts(dataset, dataset.split(name)) for name in manifest.splits},
    }
    if as_json:
        print(json.dumps(content, indent=2))
        return
    columns = ["source_records", "images", "dropped", "objects", "parts"]
    print_table(
        ["split", *(column.replace("_", " ") for column in columns), "size"],
        [
            [name, *(str(row[column]) for column in columns), size_text(row["bytes"])]
            for name, row in content["splits"].items()
        ],
    )
    if manifest.findings:
        print_table(["finding", "records"], [[key, str(n)] for key, n in manifest.findings.items()])
    names = list(manifest.splits)
    used = [c.name for c in dataset.categories if any(c.name in content["categories"][s] for s in names)]
    print_table(
        ["category", *names],
        [[name, *(str(content["categories"][split].get(name, 0)) for split in names)] for name in used],
    )


@app.command()
def verify(
    folder: Folder,
    quick: Annotated[bool, typer.Option("--quick", help="Do not decode the masks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file and every rule of the layout; exit code 2 if one is broken."""
    from partseg.layout.audit import audit

    problems = audit(_open(folder), masks=not quick)
    if as_json:
        print(json.dumps({"problems": problems}))
    else:
        for problem in problems:
            print(problem)
    if problems:
        raise LayoutError(
            f"{len(problems)} rule{'s' * (len(problems) > 1)} of the layout broken",
            where=folder,
            fix="fetch or convert the dataset again",
        )
    if not as_json:
        print(f"{folder}: sound")


@app.command()
def show(
    folder: Folder,
    raw: Annotated[Path, typer.Option("--raw", help="Folder with the raw files of the images.")],
    split: SplitName,
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    image: Annotated[str, typer.Option(help="Record name, or position in the split.")] = "0",
    objects: Annotated[bool, typer.Option("--objects", help="Draw objects instead of parts.")] = False,
) -> None:
    """Draw the masks of one image."""
    from partseg.files import replacing_file
    from partseg.layout import rle_to_mask
    from partseg.report.overlays import Shape, draw, palette

    dataset = _open(folder, raw)
    reader = dataset.split(split)
    index = _find(reader, image)
    record = reader[index]
    categories = {item.category_id: item for item in dataset.categories}
    kind = "object" if objects else "part"
    shapes = [
        Shape(mask=rle_to_mask(rle, record.height, record.width), name=categories[category_id].name)
        for category_id, rle in zip(record.category_ids.tolist(), record.rles, strict=True)
        if rle is not None and categories[category_id].kind == kind
    ]
    picture = draw(reader.read_image(index), shapes, palette(shape.name for shape in shapes))
    with replacing_file(out) as temporary:
        picture.save(temporary, "PNG")
    console().print(f"{out}: {record.source_key}, {len(shapes)} {kind}s", soft_wrap=True)


def _open(folder: Path, raw: Path | None = None) -> Dataset:
    from partseg.layout import Dataset

    return Dataset.open(folder, image_root=raw)


def _category_counts(dataset: Dataset, split: Split) -> dict[str, int]:
    """Annotations by category name; image-level labels where a split has nothing else."""
    names = {item.category_id: item.name for item in dataset.categories}
    ids: Counter[int] = Counter()
    if split.entry.annotations.rows:
        ids.update(split.table("annotations")["category_id"].to_pylist())
    else:
        for labels in split.table("images")["pos_category_ids"].to_pylist():
            ids.update(labels)
    return {names[key]: ids[key] for key in names if ids[key]}


def _find(split: Split, image: str) -> int:
    keys = split.table("images")["source_key"].to_pylist()
    if image in keys:
        return int(keys.index(image))
    if image.isdigit() and int(image) < len(keys):
        return int(image)
    raise LayoutError(f"no image {image!r}", where=f"split {split.name}", fix=f"it has {len(keys)} images")


def _options(pairs: list[str]) -> dict[str, Any]:
    import yaml

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SourceError(f"--option {pair} is not understood", fix="write --option NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PartsegError(f"--option {pair} is not YAML ({error})") from error
    return found


class _Bar:
    """One line on a terminal that shows how far a conversion is; silent elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def update(self, done: int, total: int, message: str = "") -> None:
        """Draw the line again."""
        if self._shown:
            print(f"\r{done} of {total} records {message}", end="\x1b[K", file=sys.stderr, flush=True)

    def log(self, message: str) -> None:
        """Print one line above it."""
        if self._shown:
            print(f"\r{message}\x1b[K", file=sys.stderr)

    def close(self) -> None:
        """Clear the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)
