"""``partseg data cache``: room that the working form of datasets takes."""

from __future__ import annotations

from typing import Annotated

import typer

from partseg.cli.tables import size_text

_DAY = 24 * 3600.0


def cache(
    older: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Remove what was not opened for so many days.")
    ] = 30.0,
    delete: Annotated[
        bool, typer.Option("--delete", help="Really delete; without it nothing is touched.")
    ] = False,
) -> None:
    """Free the space of datasets' working files; a dry run by default.

    They are the memory-mapped form of opened datasets, under $PARTSEG_CACHE
    or .partseg/cache. What is removed is made again when it is needed.
    """
    from partseg.files import default_cache
    from partseg.layout.cache import working_files

    files = working_files(default_cache())
    # A writer that has not finished after a day was killed.
    old = [file for file in files if file.idle >= (older if file.finished else max(older, 1)) * _DAY]
    if delete:
        for file in old:
            file.path.unlink(missing_ok=True)
    size, freed = (sum(file.size for file in some) for some in (files, old))
    verb, rest = ("freed", "") if delete else ("would free", "; --delete does it")
    print(f"{verb} {size_text(freed)} of {size_text(size)}: {len(old)} of {len(files)} files{rest}")
