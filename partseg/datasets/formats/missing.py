"""How to say which files are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from partseg.errors import SourceError
from partseg.layout import Record


def first_few(names: Sequence[str], most: int) -> str:
    """The first ``most`` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def files_missing(root: Path, key: str, names: Sequence[str], allowed: bool, fix: str) -> Record | None:
    """The record of an image some of whose files are missing; None where all are there.

    Args:
        root: the raw folder.
        key: the record's name.
        names: paths of the image's files, relative to ``root``.
        allowed: whether that is a finding instead of an error.
        fix: how to get them.

    Raises:
        SourceError: files are missing, and that is not ``allowed``.
    """
    missing = [name for name in names if not (root / name).is_file()]
    if not missing:
        return None
    what = f"missing: {', '.join(missing)}"
    if not allowed:
        raise SourceError(what, where=root, fix=fix)
    return Record.dropped(key, "files-missing", what)
