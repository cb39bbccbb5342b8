"""What all releases of PASCAL VOC have in common: image lists and files named after their image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from partseg.datasets.formats.missing import first_few
from partseg.datasets.formats.xml_files import read_xml
from partseg.errors import SourceError


def read_lists(
    root: Path, folder: str, splits: Sequence[str], wanted: Mapping[str, str], *, complete: bool, fix: str
) -> dict[str, list[str]]:
    """Image names of each split, in the order of its list.

    Args:
        root: the raw folder.
        folder: the one of the lists ``<split>.txt``; a list's first column counts.
        splits: names of the lists.
        wanted: folder and suffix of the files that every listed image has.
        complete: whether a missing file is an error.
        fix: how to get what is missing.

    Raises:
        SourceError: folders, lists or (where ``complete``) files are missing, or an image is listed twice.
    """
    lists = {split: root / folder / f"{split}.txt" for split in splits}
    missing = [f"{name}/*{suffix}" for name, suffix in wanted.items() if not (root / name).is_dir()]
    missing += [path.relative_to(root).as_posix() for path in lists.values() if not path.is_file()]
    if missing:
        raise SourceError(f"missing: {', '.join(missing)}", where=root, fix=fix)
    names = {split: _read_list(path) for split, path in lists.items()}
    for name, suffix in wanted.items() if complete else ():
        present = {path.name for path in (root / name).iterdir()}
        absent = [key + suffix for keys in names.values() for key in keys if key + suffix not in present]
        if absent:
            raise SourceError(
                f"missing: {first_few(absent, 3)}",
                where=root / name,
                fix=f"{fix}, or set allow_missing to convert what is there",
            )
    return names


def _read_list(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    odd = next((name for name in names if not re.fullmatch(r"[\w-]{1,100}", name, re.ASCII)), None)
    if odd is not None:
        raise SourceError(f"{odd[:40]!r} is not the name of an image", where=path, fix="repair the list")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SourceError(f"{repeated[0]} is listed twice", where=path, fix="repair the list")
    return names


def object_names(xml: Path, fix: str) -> list[str]:
    """Names of all objects in an annotation file.

    Raises:
        SourceError: the file is missing or damaged.
    """
    return [item.findtext("name", "") for item in read_xml(xml, fix).iter("object")]


def fields(element: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Texts of the children of an XML element by tag, whole numbers as such; one level of grandchildren."""
    found: dict[str, Any] = {}
    for child in element:
        if child.tag not in leave_out:
            found[child.tag] = {item.tag: _value(item.text) for item in child} or _value(child.text)
    return found


def _value(text: str | None) -> int | str:
    text = (text or "").strip()
    whole = text.isascii() and text.isdigit() and len(text) < 16 and str(int(text)) == text
    return int(text) if whole else text
