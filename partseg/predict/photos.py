"""Which photos a person means, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from partseg.errors import SourceError

# What is taken from a folder. A file named by itself is tried whatever its name.
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo, and the name of its results: a relative path without a suffix, with ``/``."""

    path: Path
    key: str


def find_photos(given: Sequence[str]) -> list[PhotoFile]:
    """The photos that files, folders and patterns such as ``shots/*.jpg`` name, each once, in order.

    A photo is called by its name, or by its path inside the folder given. Where two would be called the same,
    all are called by their path below the folder they have in common, with their suffix.

    Raises:
        SourceError: nothing is there.
    """
    found: dict[Path, PhotoFile] = {}
    for text in given:
        for photo in _matches(text):
            found.setdefault(Path(os.path.abspath(photo.path)), photo)  # noqa: PTH100 - keeps links
    photos = list(found.values())
    if max(Counter(photo.key.lower() for photo in photos).values()) > 1:
        top = Path(os.path.commonpath([path.parent for path in found]))
        photos = [PhotoFile(photo.path, path.relative_to(top).as_posix()) for path, photo in found.items()]
    return photos


def _matches(text: str) -> list[PhotoFile]:
    path = Path(text)
    if path.is_dir():
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        photos = [PhotoFile(file, file.relative_to(path).with_suffix("").as_posix()) for file in inside]
        what = "no photos in this folder"
    elif path.exists() or not glob.has_magic(text):
        if not path.is_file():
            raise SourceError("no such photo", where=text, fix="check the path")
        return [PhotoFile(path, path.stem)]
    else:
        photos = [
            PhotoFile(Path(name), Path(name).stem)
            for name in sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - any pattern
            if Path(name).is_file()
        ]
        what = "no file fits this pattern"
    if not photos:
        raise SourceError(what, where=text, fix=f"photos end in {', '.join(sorted(SUFFIXES))}")
    return photos
