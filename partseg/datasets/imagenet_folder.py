"""Images in one folder per class, such as ImageNet's training set: image-level labels, no boxes.

Raw folder::

    n02085620/n02085620_7.JPEG        (also .jpg, .jpeg and .png)

The option ``classes`` says which folders are read and which category each one shows; several folders may
show the same category.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.class_folders import image_names, too_large
from partseg.datasets.formats.missing import first_few
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Category, ImageRow, Record, image_size


class Options(BaseModel):
    """Settings of the conversion.

    Attributes:
        classes: category name of each class folder, or the name of a table in ``data_manifests/categories``.
        split: name of the split that is written.
        max_side: images wider or taller than this many pixels are dropped with a finding.
        per_class: only the first so many images of each folder, in the order of their names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: dict[str, str] | str = "imagenet_voc"
    split: str = "train"
    max_side: int | None = None
    per_class: int | None = None

    def folders(self) -> Mapping[str, str]:
        """Category name of each class folder."""
        if isinstance(self.classes, str):
            classes: Mapping[str, str] = category_facts(self.classes)["classes"]
            return classes
        return self.classes


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """One object category per name, ids from 1 in alphabetical order."""
    folders = options.folders()
    return tuple(
        Category(
            category_id=index,
            name=name,
            kind="object",
            synset=",".join(sorted(folder for folder, shown in folders.items() if shown == name)),
        )
        for index, name in enumerate(sorted(set(folders.values())), start=1)
    )


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the images that a conversion reads, sorted.

    Raises:
        SourceError: class folders are missing or empty.
    """
    found: list[str] = []
    problems: list[str] = []
    for folder in sorted(options.folders()):
        names = image_names(root / folder)
        if not names:
            problems.append(f"{folder}/*.JPEG")
        found += [f"{folder}/{name}" for name in names[: options.per_class]]
    if problems:
        raise SourceError(
            f"not a folder of class folders, missing: {first_few(problems, 5)}",
            where=root,
            fix="name the folder of the class folders, or list the classes it has in the option classes",
        )
    return found


def splits(raw: Raw, options: Options) -> dict[str, list[str]]:
    """The only split; record names are the relative paths of the images.

    Raises:
        SourceError: as :func:`files`.
    """
    return {options.split: files(raw.root, options)}


def details(raw: Raw, options: Options) -> dict[str, dict[str, Any]]:
    """Nothing: the folders say no more."""
    return {}


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Images with their image-level labels.

    Raises:
        SourceError: an image is missing or damaged.
    """
    ids = {item.name: item.category_id for item in categories(raw, options)}
    folders = options.folders()
    for key in keys:
        yield _read(raw.root / key, key, ids[folders[key.split("/")[0]]], options.max_side)


def _read(path: Path, key: str, label: int, max_side: int | None) -> Record:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SourceError("the image is missing", where=path, fix="check the raw folder") from None
    height, width = image_size(content, path)
    if dropped := too_large(key, (height, width), max_side):
        return dropped
    row = ImageRow(
        file_name=key,
        height=height,
        width=width,
        source_key=key,
        sha256=hashlib.sha256(content).digest(),
        pos_category_ids=(label,),
    )
    return Record(image=row)
