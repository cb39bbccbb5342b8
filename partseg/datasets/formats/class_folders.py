"""Images in one folder per class, as ImageNet has them."""

from __future__ import annotations

from pathlib import Path

from partseg.layout import Record

_SUFFIXES = (".jpeg", ".jpg", ".png")


def image_names(folder: Path) -> list[str]:
    """Names of the images in a class folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def too_large(key: str, size: tuple[int, int], max_side: int | None) -> Record | None:
    """The record of an image of ``size`` (height, width) if a side has more than ``max_side`` pixels."""
    if max_side is None or max(size) <= max_side:
        return None
    message = f"{size[0]}x{size[1]} (height x width) is larger than {max_side} pixels"
    return Record.dropped(key, "image-too-large", message)
