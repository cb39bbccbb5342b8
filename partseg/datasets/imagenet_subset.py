"""ImageNet images that VLPart learns from: image-level labels, chosen by class folder.

Raw folder (the training images of ImageNet-1k, one folder per class)::

    n01440764/n01440764_18.JPEG        (also .jpg, .jpeg and .png)

Which folders show which category, and how many of their images count, is in
``data_manifests/categories/imagenet_subsets.json``. The rules are VLPart's, so that its numbers can be
reproduced: categories in their order, folders by their place among the thousand, files by name; every one
gets the next id, and those that are too large are left out after that. A folder that shows two categories
gives each image twice.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, ConfigDict

from partseg.datasets.facts import category_facts
from partseg.datasets.formats.class_folders import image_names, too_large
from partseg.datasets.formats.missing import first_few
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Category, ImageRow, Record, image_size

_FACTS = "imagenet_subsets"
_SPLIT = "train"
_GET_IT = "name the folder of ImageNet's class folders"

Subset = Literal[
    "imagenet_voc",
    "imagenet_golden",
    "imagenet_golden_without_addition",
    "imagenet_golden_pascal",
    "imagenet_golden_partimagenet",
    "imagenet_golden_paco",
    "imagenet_golden_addition",
]


class Options(BaseModel):
    """Settings of the conversion.

    Attributes:
        subset: name of the selection, as VLPart registers it (imagenet_voc is the paper's IN-S20).
        published_mistakes: choose remote controls for the category "tv monitor", as the published selections
            do, instead of monitors and televisions.
        allow_missing: leave out class folders that are not there instead of reporting an error. The ids are
            then not those of the published selection.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subset: Subset = "imagenet_voc"
    published_mistakes: bool = True
    allow_missing: bool = False

    def wnids(self) -> list[str]:
        """All class folders of the selection, sorted."""
        return sorted({wnid for choice in _choices(self) for wnid in choice.wnids})


class _Choice(NamedTuple):
    """One category of a selection."""

    category_id: int
    name: str  # unique in the selection
    source_name: str
    imagenet_id: list[list[int]]
    wnids: list[str]


class _Key(NamedTuple):
    """What the key of a record says: ``<running id>:<category>:<file>``."""

    source_id: int
    category_id: int
    file_name: str

    @classmethod
    def parse(cls, key: str) -> _Key:
        source_id, category_id, file_name = key.split(":", 2)
        return cls(int(source_id), int(category_id), file_name)

    def __str__(self) -> str:
        return f"{self.source_id}:{self.category_id}:{self.file_name}"


def categories(raw: Raw, options: Options) -> tuple[Category, ...]:
    """The categories of the selection under their published ids; some have no images.

    A name that two tables of a selection share gets the second table's name behind it.
    """
    return tuple(
        Category(
            category_id=choice.category_id,
            name=choice.name,
            kind="object",
            source_id=choice.category_id,
            source_name=None if choice.name == choice.source_name else choice.source_name,
            extra={"imagenet_id": choice.imagenet_id},
        )
        for choice in _choices(options)
    )


def files(root: Path, options: Options) -> list[str]:
    """Relative paths of the images that a conversion reads, sorted.

    Raises:
        SourceError: class folders are missing.
    """
    return sorted({key.file_name for key in _keys(root, options)})


def splits(raw: Raw, options: Options) -> dict[str, list[str]]:
    """The only split.

    Raises:
        SourceError: class folders are missing.
    """
    return {_SPLIT: [str(key) for key in _keys(raw.root, options)]}


def details(raw: Raw, options: Options) -> dict[str, dict[str, Any]]:
    """The rules of the selection, its known mistakes, and class folders that were left out."""
    facts = category_facts(_FACTS)
    names = {choice.source_name for choice in _choices(options)}
    return {
        _SPLIT: {
            "subset": options.subset,
            "per_folder": facts["subsets"][options.subset]["per_folder"],
            "max_side": facts["max_side"],
            "mistakes": [
                f"{item['name']}: {item['note']}"
                for item in facts["repairs"]
                if options.published_mistakes and item["name"] in names
            ],
            "missing_folders": [wnid for wnid in options.wnids() if not (raw.root / wnid).is_dir()],
        }
    }


def read(raw: Raw, split: str, keys: Sequence[str], options: Options) -> Iterator[Record]:
    """Images with their label.

    Raises:
        SourceError: an image is missing or damaged.
    """
    max_side = category_facts(_FACTS)["max_side"]
    for key in keys:
        yield _read(raw.root, _Key.parse(key), max_side)


def _read(root: Path, key: _Key, max_side: int) -> Record:
    path = root / key.file_name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"cannot be read ({error.strerror})", where=path, fix="check the raw folder"
        ) from error
    height, width = image_size(content, path)
    if dropped := too_large(str(key), (height, width), max_side):
        return dropped
    with Image.open(io.BytesIO(content)) as image:
        stored = image.size
    row = ImageRow(
        file_name=key.file_name,
        height=height,
        width=width,
        source_key=str(key),
        source_id=key.source_id,
        sha256=hashlib.sha256(content).digest(),
        pos_category_ids=(key.category_id,),
        # the published lists do not know of EXIF orientations
        extra=None if stored == (width, height) else {"width": stored[0], "height": stored[1]},
    )
    return Record(image=row)


def _choices(options: Options) -> list[_Choice]:
    facts = category_facts(_FACTS)
    repairs = {} if options.published_mistakes else {item["name"]: item for item in facts["repairs"]}
    classes = category_facts("imagenet1k")["classes"]
    found: dict[str, _Choice] = {}
    for table in facts["subsets"][options.subset]["tables"]:
        for item in facts["tables"][table]:
            ranges = repairs.get(item["name"], item)["imagenet_id"]
            name = f"{item['name']} ({table})" if item["name"] in found else item["name"]
            wnids = [classes[place - 1][0] for first, last in ranges for place in range(first, last + 1)]
            found[name] = _Choice(item["id"], name, item["name"], ranges, wnids)
    return list(found.values())


def _keys(root: Path, options: Options) -> Iterator[_Key]:
    images = _images(root, options)
    per_folder = category_facts(_FACTS)["subsets"][options.subset]["per_folder"]
    source_id = 0
    for choice in _choices(options):
        for wnid in choice.wnids:
            for name in images.get(wnid, [])[:per_folder]:
                source_id += 1
                yield _Key(source_id, choice.category_id, f"{wnid}/{name}")


def _images(root: Path, options: Options) -> Mapping[str, list[str]]:
    """Names of the images in each class folder, sorted."""
    wnids = options.wnids()
    missing = [wnid for wnid in wnids if not (root / wnid).is_dir()]
    if missing and (not options.allow_missing or len(missing) == len(wnids)):
        raise SourceError(
            f"class folders are missing: {first_few(missing, 5)}",
            where=root,
            fix=f"{_GET_IT}, or set allow_missing to convert what is there",
        )
    return {wnid: image_names(root / wnid) for wnid in wnids if wnid not in set(missing)}
