"""Predictions of panoptic and semantic models in files: COCO panoptic JSON with PNG, and folders of maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from partseg.evaluation.match_counts import ImageId
from partseg.evaluation.overlaps import LabelMap
from partseg.evaluation.panoptic_image import PanopticImage, ThingOrStuff, panoptic_image
from partseg.evaluation.part_maps import PartMap
from partseg.evaluation.predictions import PredictionError

_ROWS = 128
_MAPS = (".png", ".tif", ".tiff")
_FIX = "write it again, as the evaluated format has it"


class PanopticFolder:
    """Segments in COCO panoptic format: a JSON file, and a folder of PNG files beside it.

    It pickles only its paths.

    Args:
        json: the file.
        folder: of the PNG files; by default the one named as the file without ``.json``.
        category_of: a category for every one of the file; by default they stay what they are.

    Raises:
        PredictionError: the file is missing, or no panoptic JSON; the folder is missing.
    """

    def __init__(
        self, json: Path, folder: Path | None = None, *, category_of: Mapping[int, int] | None = None
    ) -> None:
        self.json, self.folder = json, json.with_suffix("") if folder is None else folder
        self.category_of = None if category_of is None else dict(category_of)
        if not self.folder.is_dir():
            raise PredictionError(
                "there is no folder of PNG files for this JSON", where=self.folder, fix="name the folder"
            )
        _ = self._annotations

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_panoptic, (self.json, self.folder, self.category_of)

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        """The images in the order of the file."""
        return tuple(self._annotations)

    def categories(self) -> tuple[ThingOrStuff, ...]:
        """The classes that the file lists; a prediction may list none."""
        found = self._content.get("categories", [])
        try:
            return tuple(ThingOrStuff(item["id"], item["name"], item.get("isthing") == 1) for item in found)
        except (TypeError, KeyError) as error:
            raise PredictionError("the categories are not usable", where=self.json, fix=_FIX) from error

    def read(self, image_id: ImageId) -> PanopticImage:
        """The segments of an image.

        Raises:
            PredictionError: the image or its PNG file is missing or damaged, or a category is unknown.
        """
        annotation = self._annotations.get(image_id)
        if annotation is None:
            raise PredictionError(
                f"no prediction for image {image_id}",
                where=self.json,
                fix="predict every image of the split; nothing found is a black map and an empty list",
            )
        try:
            path = self.folder / annotation["file_name"]
            rows = annotation["segments_info"]
            ids = [row["id"] for row in rows]
            categories = [self._category(row) for row in rows]
            crowd = [row.get("iscrowd", 0) == 1 for row in rows]
            areas = [row["area"] for row in rows] if all("area" in row for row in rows) else None
        except (TypeError, KeyError, AttributeError) as error:
            raise PredictionError(
                f"the annotation of image {image_id} lacks {error}", where=self.json, fix=_FIX
            ) from error
        return panoptic_image(read_colours(path), ids, categories, is_crowd=crowd, areas=areas)

    def _category(self, row: Mapping[str, Any]) -> int:
        category: int = row["category_id"]
        if self.category_of is None:
            return category
        if category not in self.category_of:
            raise PredictionError(
                f"segment {row['id']} has the unknown category {category}",
                where=self.json,
                fix="use the category ids of the dataset",
            )
        return self.category_of[category]

    @cached_property
    def _content(self) -> dict[str, Any]:
        try:
            content = orjson.loads(self.json.read_bytes())
        except FileNotFoundError:
            raise PredictionError("there is no such file", where=self.json) from None
        except (orjson.JSONDecodeError, OSError) as error:
            raise PredictionError(f"not readable JSON ({error})", where=self.json) from error
        if isinstance(content, list):  # some tools write the annotations alone
            content = {"annotations": content}
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise PredictionError("no list of annotations", where=self.json, fix=_FIX)
        return content

    @cached_property
    def _annotations(self) -> dict[ImageId, dict[str, Any]]:
        try:
            return {item["image_id"]: item for item in self._content["annotations"]}
        except (TypeError, KeyError) as error:
            raise PredictionError(
                "an annotation has no image_id: is this a COCO panoptic file?", where=self.json, fix=_FIX
            ) from error


def _open_panoptic(json: Path, folder: Path, category_of: dict[int, int] | None) -> PanopticFolder:
    return PanopticFolder(json, folder, category_of=category_of)


class MapFolder:
    """One map per image, PNG or TIFF, anywhere below a folder.

    The map of an image has its file's path or name (suffixes aside), or begins with its name and ``_``.

    Raises:
        PredictionError: there is no such folder, or no map in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise PredictionError("there is no such folder", where=folder)
        if not self._paths:
            raise PredictionError("there is no PNG or TIFF file here", where=folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def path(self, name: str) -> Path:
        """The map of the image whose file is called ``name``, with or without folders and suffix.

        Raises:
            PredictionError: there is none, or there are several.
        """
        wanted = PurePosixPath(name)
        stem = wanted.stem if wanted.suffix.lower() in (*_MAPS, ".jpg", ".jpeg") else wanted.name
        whole = (wanted.parent / stem).as_posix()
        if whole in self._paths:
            return self._paths[whole]
        found = self._stems.get(stem) or [
            path for other, paths in self._stems.items() if other.startswith(f"{stem}_") for path in paths
        ]
        if len(found) != 1:
            several = ", ".join(sorted(str(path.relative_to(self.folder)) for path in found)[:3])
            raise PredictionError(
                f"several maps for image {stem}: {several}" if found else f"no prediction for image {stem}",
                where=self.folder,
                fix="keep one file per image" if found else "predict every image of the split",
            )
        return found[0]

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """By path below the folder, without suffix."""
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in _MAPS)
        return {path.relative_to(self.folder).with_suffix("").as_posix(): path for path in paths}

    @cached_property
    def _stems(self) -> dict[str, list[Path]]:
        stems: dict[str, list[Path]] = {}
        for path in self._paths.values():
            stems.setdefault(path.stem, []).append(path)
        return stems


class PartFolder(MapFolder):
    """Part-aware panoptic maps: three channels as TAPPS writes them, or uids as panoptic-parts has them.

    Args:
        folder: of the maps.
        folded: see :class:`~partseg.evaluation.part_maps.PartMap`; counts for uids alone.

    Raises:
        PredictionError: as :class:`MapFolder`.
    """

    def __init__(self, folder: Path, *, folded: bool = True) -> None:
        super().__init__(folder)
        self.folded = folded

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_parts, (self.folder, self.folded)

    def read(self, name: str) -> PartMap:
        """The map of an image.

        Raises:
            PredictionError: it is missing, damaged or of another kind.
        """
        path = self.path(name)
        labels = _pixels(path)
        if labels.ndim == 3:
            return PartMap(labels=labels, encoding="channels")
        return PartMap(labels=labels, encoding="uids", folded=self.folded)


def _open_parts(folder: Path, folded: bool) -> PartFolder:
    return PartFolder(folder, folded=folded)


class SemanticFolder(MapFolder):
    """Maps of one channel: the class of every pixel."""

    def read(self, name: str) -> LabelMap:
        """The map of an image.

        Raises:
            PredictionError: it is missing, damaged or has several channels.
        """
        path = self.path(name)
        labels = _pixels(path)
        if labels.ndim == 3:
            raise PredictionError(
                "the map has three channels, a semantic map one", where=path, fix="write 8 or 16 bits of grey"
            )
        return labels


def read_colours(path: Path) -> NDArray[np.uint8]:
    """The three channels [H, W, 3] of a colour PNG.

    Raises:
        PredictionError: the file is missing, damaged or has one channel.
    """
    labels = _pixels(path)
    if labels.ndim != 3:
        raise PredictionError(
            "the map has one channel, not the three of a panoptic id", where=path, fix="write it as RGB"
        )
    return labels


def _pixels(path: Path) -> NDArray[Any]:
    """uint8 [H, W, 3], or the integers [H, W] of one channel."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("RGB", "L", "P", "I") or image.mode.startswith("I;16"):
                return _array(image)
            if image.mode == "RGBA":
                return _array(image.convert("RGB"))
            mode = image.mode
    except FileNotFoundError:
        raise PredictionError("the map is missing", where=path, fix="predict this image") from None
    # pillow lets through whatever its many parsers trip over
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PredictionError(f"the map is damaged ({reason})", where=path, fix=_FIX) from error
    raise PredictionError(f"the map has mode {mode}, not integers", where=path, fix=_FIX)


def _array(image: Image.Image) -> NDArray[Any]:
    """The pixels, some rows at a time: whole, pillow would hold them twice."""
    width, height = image.size
    strips = (
        np.asarray(image.crop((0, top, width, min(top + _ROWS, height)))) for top in range(0, height, _ROWS)
    )
    first = next(strips)
    pixels = np.empty((height, *first.shape[1:]), first.dtype)
    pixels[: len(first)] = first
    for number, strip in enumerate(strips, 1):
        pixels[number * _ROWS : number * _ROWS + len(strip)] = strip
    return pixels
