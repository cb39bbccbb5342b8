"""``partseg data export``: datasets in the formats of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from partseg.cli.bar import Bar
from partseg.cli.tables import console
from partseg.errors import LayoutError, PartsegError

if TYPE_CHECKING:
    from partseg.layout import Dataset
    from partseg.layout.export.coco import Form
    from partseg.layout.export.coco import Ids as JsonIds

Write = Callable[[str, Path], dict[str, int]]


class Format(StrEnum):
    """What is written."""

    COCO = "coco"
    LVIS = "lvis"
    PACO = "paco"
    COCO_PANOPTIC = "coco_panoptic"
    PANOPTIC_PARTS = "panoptic_parts"
    SEMANTIC = "semantic"
    HUGGINGFACE = "huggingface"


class Compat(StrEnum):
    """Whose files are reproduced."""

    VLPART = "vlpart"
    PANOPTICAPI = "panopticapi"
    TAPPS = "tapps"


class Ids(StrEnum):
    """Whose ids are written."""

    SOURCE = "source"
    LAYOUT = "layout"
    TRAIN = "train"


class Paint(StrEnum):
    """What the pixels of a semantic map say."""

    OBJECT = "object"
    PART = "part"
    BOTH = "both"


class Photos(StrEnum):
    """What happens to the image files."""

    COPY = "copy"
    LINK = "link"
    NONE = "none"


# The formats in which a project's own files are; the first is meant where none is named.
_COMPAT = {
    Compat.VLPART: (Format.COCO,),
    Compat.PANOPTICAPI: (Format.COCO, Format.SEMANTIC),
    Compat.TAPPS: (Format.PANOPTIC_PARTS,),
}
_JSON = (Format.COCO, Format.LVIS, Format.PACO)


def export(
    folder: Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="A folder with a dataset.json.")],
    out: Annotated[
        Path, typer.Option("--out", help="File or folder to write; with several splits a folder of them.")
    ],
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="Name of a split; again for more.", show_default="all"),
    ] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="File format.", show_default="coco")
    ] = None,
    compat: Annotated[
        Compat | None, typer.Option(help="Reproduce the files of this project, quirks included.")
    ] = None,
    ids: Annotated[
        Ids | None,
        typer.Option(help="The source's ids, the layout's, or 0, 1, 2, ... (semantic maps only)."),
    ] = None,
    paint: Annotated[Paint, typer.Option(help="Classes of semantic maps.")] = Paint.OBJECT,
    photos: Annotated[
        Photos, typer.Option(help="Photos in tapps and huggingface folders: their bytes or their paths.")
    ] = Photos.COPY,
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Folder with the raw files of the photos.")
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Leave out novel categories.")] = False,
    single_object: Annotated[
        bool, typer.Option("--single-object", help="Only images with exactly one object.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a dataset as COCO, LVIS or PACO JSON, as panoptic or semantic maps, or for Hugging Face.

    JSON of a dataset that was JSON has the ids and the order of its source, and the same content.
    """
    from partseg.layout import Dataset
    from partseg.layout.files import new_folder

    if file_format is None:
        file_format = Format.COCO if compat is None else _COMPAT[compat][0]
    _check(file_format, compat, ids, base_only or single_object)
    dataset = Dataset.open(folder, image_root=raw)
    names = dataset.splits if split is None or split == ["all"] else tuple(dict.fromkeys(split))
    for name in names:
        dataset.split(name)  # before anything is written
    try:
        with Bar("records") as bar:
            if compat is Compat.TAPPS:
                from partseg.layout.export.tapps import write_tapps

                counts: dict[str, Any] = write_tapps(
                    dataset, out, splits=names, photos=photos.value, report=bar
                )
            elif file_format is Format.HUGGINGFACE:
                from partseg.layout.export.huggingface import write_huggingface

                counts = write_huggingface(dataset, out, splits=names, photos=photos.value, report=bar)
            else:
                is_json = file_format in _JSON or compat is not None
                write = (
                    _json(dataset, file_format, compat, ids, base_only, single_object, bar)
                    if is_json
                    else _maps(dataset, file_format, ids, paint, bar)
                )
                if len(names) == 1 and split != ["all"]:
                    counts = write(names[0], out)
                else:
                    with new_folder(out) as together:
                        suffix = ".json" if is_json else ""
                        counts = {name: write(name, together / f"{name}{suffix}") for name in names}
    except OSError as error:
        raise LayoutError(
            f"cannot be written ({error})", where=out, fix="name another place, or make room on the disk"
        ) from error
    _print(out, file_format, counts, as_json)


def _check(file_format: Format, compat: Compat | None, ids: Ids | None, selects: bool) -> None:
    if compat is not None and file_format not in _COMPAT[compat]:
        known = " or ".join(_COMPAT[compat])
        raise PartsegError(f"--compat {compat} does not write {file_format}", fix=f"use --format {known}")
    if ids is not None and (compat is not None or file_format not in (*_JSON, Format.SEMANTIC)):
        raise PartsegError(f"the ids of {compat or file_format} are fixed", fix="leave out --ids")
    if ids is Ids.TRAIN and file_format is not Format.SEMANTIC:
        raise PartsegError("--ids train is for semantic maps", fix="use --ids source or layout")
    if selects and (file_format not in _JSON or compat not in (None, Compat.VLPART)):
        raise PartsegError("--base-only and --single-object are for COCO, LVIS and PACO JSON")


def _json(
    dataset: Dataset,
    file_format: Format,
    compat: Compat | None,
    ids: Ids | None,
    base_only: bool,
    single_object: bool,
    bar: Bar,
) -> Write:
    if compat is Compat.PANOPTICAPI:
        from partseg.layout.export import panopticapi
        from partseg.layout.export.json_out import write_json

        build = panopticapi.to_semantic if file_format is Format.SEMANTIC else panopticapi.to_detection

        def write_compat(split: str, out: Path) -> dict[str, int]:
            content = build(dataset, split)
            write_json(out, content)
            return {name: len(content[name]) for name in ("categories", "images", "annotations")}

        return write_compat

    from partseg.layout.export import coco

    def write(split: str, out: Path) -> dict[str, int]:
        return coco.export(
            dataset,
            split,
            out,
            form=cast("Form", file_format.value),
            ids=None if ids is None else cast("JsonIds", ids.value),
            compat="vlpart" if compat is Compat.VLPART else None,
            base_only=base_only,
            single_object=single_object,
            report=bar,
        )

    return write


def _maps(dataset: Dataset, file_format: Format, ids: Ids | None, paint: Paint, bar: Bar) -> Write:
    from partseg.layout.export import panoptic as panoptic_out
    from partseg.layout.export.semantic import write_semantic

    if file_format is Format.SEMANTIC:
        pixels: Literal["category", "train", "source"] = (
            "category" if ids in (None, Ids.LAYOUT) else "train" if ids is Ids.TRAIN else "source"
        )
        return lambda split, out: write_semantic(
            dataset, split, out, ids=pixels, kind=paint.value, report=bar
        )
    write = (
        panoptic_out.write_coco_panoptic
        if file_format is Format.COCO_PANOPTIC
        else panoptic_out.write_panoptic_parts
    )
    return lambda split, out: write(dataset, split, out, report=bar)


def _print(out: Path, file_format: Format, counts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"format": file_format.value, **counts}))
        return
    by_split = counts if all(isinstance(value, dict) for value in counts.values()) else {"": counts}
    for split, found in by_split.items():
        numbers = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())
        console().print(f"{out}{f', {split}' * bool(split)}: {numbers}", soft_wrap=True)
