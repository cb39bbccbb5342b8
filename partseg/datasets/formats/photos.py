"""Photos that annotations refer to: whether they are there, and whether they are the right ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from partseg.datasets.formats.missing import first_few
from partseg.errors import SourceError
from partseg.layout import Finding, Record, image_size

Images = Literal["hash", "list", "none"]
"""hash: read every photo, record its sha256 and check its size; list: it must exist; none: do not look."""


def check_photos(root: Path, file_names: Iterable[str], images: Images, fix: str) -> None:
    """Have all photos in place, as far as ``images`` says.

    Raises:
        SourceError: some are missing; names up to three.
    """
    if images == "none":
        return
    missing = [name for name in file_names if not (root / name).is_file()]
    if missing:
        raise SourceError(f"photos are missing: {first_few(missing, 3)}", where=root, fix=fix)


def photo_digest(root: Path, file_name: str, size: tuple[int, int], images: Images) -> bytes | None:
    """sha256 of a photo of ``size`` (height, width); None unless ``images`` is "hash".

    Raises:
        FileNotFoundError: it is missing, and ``images`` is not "none".
        SourceError: it is damaged, or has another size.
    """
    path = root / file_name
    if images == "none":
        return None
    if not path.is_file():
        raise FileNotFoundError(path)
    if images == "list":
        return None
    content = path.read_bytes()
    found = image_size(content, path)
    if found != size:
        raise SourceError(
            "the photo is {}x{}, its annotation {}x{} (height x width)".format(*found, *size),
            where=path,
            fix="the two do not belong together: download or extract them again",
        )
    return hashlib.sha256(content).digest()


def photo_missing(
    root: Path, file_name: str, key: str, allowed: bool, fix: str, others: Sequence[Finding] = ()
) -> Record:
    """The record of an image whose photo is missing; ``others`` were found before.

    Raises:
        SourceError: that is not ``allowed``.
    """
    if not allowed:
        raise SourceError(f"the photo {file_name} is missing", where=root, fix=fix)
    return Record.dropped(key, "image-missing", f"{file_name} is missing", others)
