"""``partseg data synthetic``: a small made-up raw folder, to try a source without its download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from partseg.cli.options import Settings, parse_settings
from partseg.cli.tables import console


def synthetic(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a raw format; see `data list`.")],
    out: Annotated[Path, typer.Option("--out", help="The raw folder; must not exist yet, or be empty.")],
    option: Settings = None,
    source_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of the source that says which folders there are, as in `convert`.",
        ),
    ] = None,
) -> None:
    """Make up a small raw folder in the format of a dataset.

    Settings are seed, size in pixels and the number of images: train and val, or per_class.
    """
    from partseg.layout.files import NewFolder
    from partseg.synthetic import make_up

    settings, options = parse_settings(option), parse_settings(source_option)
    folder = NewFolder(out)
    try:
        make_up(source, folder.path, settings, options)
        folder.commit()
    except BaseException:
        folder.discard()
        raise
    files = [path for path in out.rglob("*") if path.is_file()]
    console().print(f"{out}: {len(files):,} files", soft_wrap=True)
