"""LVIS v1: 1203 categories on COCO's photos, a part of them checked in each image.

Raw folder::

    annotations/lvis_v1_{train,val}.json
    annotations/lvis_v1_minival_inserted_image_name.json      (optional: the split minival, published by GLIP)
    {train,val}2017/000000000139.jpg

Photos of both splits lie in both of COCO's folders, which ``coco_url`` names. Files like those of LVIS v0.5,
with COCO 2014 file names, are read as well.

The split ``minival`` is the part of val with photos in COCO's val2017, so that no model that learned from
COCO has seen them. Where its file is not at hand, it can be taken out of the file of val, by a list of image
ids or by the folder of the photos::

    {splits: [minival], annotations: {minival: annotations/lvis_v1_val.json}, photos_in: {minival: val2017}}
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field

from partseg.datasets.formats.coco_file import Format
from partseg.datasets.formats.coco_options import CocoOptions
from partseg.datasets.formats.coco_source import CocoSource
from partseg.datasets.formats.photos import check_photos
from partseg.datasets.source import Raw
from partseg.errors import SourceError

_FIX = "unpack lvis_v1_{train,val}.json.zip into annotations, and COCO's photos beside it"
_MINIVAL_FIX = (
    "download it, data_manifests/lvis_v1.yaml says from where; or take it out of val with the options "
    "annotations: {minival: annotations/lvis_v1_val.json}, photos_in: {minival: val2017}"
)
_TOGETHER = 4096  # images read at a time


class Options(CocoOptions):
    """Settings of the conversion; see :class:`~partseg.datasets.formats.coco_options.CocoOptions`.

    Attributes:
        image_ids: split -> JSON file, relative to the raw root, with the ids of the images that belong to it:
            a list of numbers, or a COCO-like file whose images count. Other images of its annotation file
            are left out.
        photos_in: split -> folder of COCO; images with photos elsewhere are left out.
    """

    USUAL: ClassVar[Mapping[str, str]] = {
        "train": "annotations/lvis_v1_train.json",
        "val": "annotations/lvis_v1_val.json",
        "minival": "annotations/lvis_v1_minival_inserted_image_name.json",
    }
    splits: tuple[str, ...] = ("train", "val")
    image_ids: dict[str, str] = Field(default={})
    photos_in: dict[str, Literal["train2017", "val2017"]] = Field(default={})


def _photo(split: str, image: Mapping[str, Any], options: CocoOptions) -> str:
    """``train2017/000000155379.jpg`` of the URL; else of the file name, whose last 16 letters may be all."""
    if "coco_url" in image:
        folder, name = image["coco_url"].split("/")[-2:]
        return f"{folder}/{name[-16:] if name.startswith('COCO') else name}"
    name = str(image["file_name"])
    if "/" in name:
        return name
    folder = "train2017" if split == "train" else "val2017"
    return f"{folder}/{name[-16:] if name.startswith('COCO') else name}"


class _Source(CocoSource):
    """LVIS' files, of some of which a part of the images is wanted."""

    def files(self, root: Path, options: Options) -> list[str]:  # type: ignore[override]
        usual = options.USUAL["minival"]
        if usual in options.names().values() and not (root / usual).is_file():
            raise SourceError(f"missing: {usual}", where=root, fix=_MINIVAL_FIX)
        lists = {name for split, name in options.image_ids.items() if split in options.splits}
        if missing := sorted(name for name in lists if not (root / name).is_file()):
            raise SourceError(f"missing: {', '.join(missing)}", where=root, fix="name the file in image_ids")
        return sorted({*super().files(root, options), *lists})

    def splits(self, raw: Raw, options: Options) -> Mapping[str, Sequence[str]]:  # type: ignore[override]
        parts = [split for split in options.splits if split in {*options.image_ids, *options.photos_in}]
        if not parts:
            return super().splits(raw, options)
        found = dict(super().splits(raw, options.model_copy(update={"images": "none"})))
        rows = {split: list(self._wanted(raw, split, options)) for split in parts}
        for split, wanted in rows.items():
            found[split] = [found[split][row] for row, _ in wanted]
        if options.images != "none" and not options.allow_missing:
            for split, file in self._files(raw, options).items():
                photos = (photo for _, photo in rows[split] if photo) if split in rows else file.photos()
                check_photos(raw.root, photos, options.images, _FIX)
        return {split: found[split] for split in options.splits}

    def _wanted(self, raw: Raw, split: str, options: Options) -> Iterator[tuple[int, str | None]]:
        """Row in the annotation file and photo of every image that belongs to a split."""
        name, folder = options.image_ids.get(split), options.photos_in.get(split)
        ids = None if name is None else _ids(raw.root / name)
        index, seen = self._files(raw, options)[split].index, set()
        for start in range(0, index.count("images"), _TOGETHER):
            stop = min(start + _TOGETHER, index.count("images"))
            for row, image in enumerate(index.parsed("images", range(start, stop)), start):
                photo = self._place(split, image, options)
                inside = folder is None or (photo is not None and photo.startswith(f"{folder}/"))
                if inside and (ids is None or image.get("id") in ids):
                    seen.add(image.get("id"))
                    yield row, photo
        if not seen or (ids is not None and folder is None and len(seen) < len(ids)):
            count = "no image" if not seen else f"only {len(seen)} of {len(ids or ())} images"
            fix = "take the ids of images of that file, and a folder that its photos lie in"
            raise SourceError(f"{count} of the split {split}", where=index.path, fix=fix)

    @staticmethod
    def _place(split: str, image: Mapping[str, Any], options: Options) -> str | None:
        try:
            return _photo(split, image, options)
        except (LookupError, TypeError, ValueError, AttributeError):
            return None


def _ids(path: Path) -> Collection[int]:
    """The image ids that a JSON file lists, or that its images have.

    Raises:
        SourceError: it holds neither.
    """
    try:
        content = orjson.loads(path.read_bytes())
        images = content["images"] if isinstance(content, dict) else content
        ids = [image["id"] if isinstance(image, dict) else image for image in images]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SourceError(f"holds no list of image ids ({error})", where=path) from error
    if not ids or not all(type(number) is int for number in ids):
        raise SourceError("holds no list of image ids", where=path, fix="write numbers: [397133, 37777]")
    return frozenset(ids)


_SOURCE = _Source(Format(fix=_FIX, photo=_photo))
files = _SOURCE.files
categories = _SOURCE.categories
splits = _SOURCE.splits
details = _SOURCE.details
read = _SOURCE.read
