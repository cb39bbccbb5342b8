"""The results of many photos in one folder.

``detections/<photo>.json`` is written last, so a photo that has it is done and a rerun skips it.
``results.json`` (COCO results) and ``images.json`` (the images and categories its ids mean, in the form of a
COCO file) are made from these at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from partseg.errors import LayoutError, SourceError
from partseg.files import replacing_file, write_file
from partseg.predict.photos import PhotoFile
from partseg.predict.prediction import NamedClass, Prediction, xyxy_to_xywh

FORMAT = "partseg-predictions-1"
ABOUT, RESULTS, IMAGES = "predictions.json", "results.json", "images.json"
DETECTIONS, OVERLAYS, CROPS = "detections", "overlays", "crops"
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a folder of predictions holds."""

    images: int
    objects: int
    parts: int


class PredictionsFolder:
    """A folder to write predictions to, new or of an earlier run with the same settings.

    Args:
        out: the folder.
        classes: what was looked for; their ids are the categories'.
        settings: everything else the predictions depend on, as JSON values.
        overlays: whether to write pictures.
        crops: whether to write every detection cut out.
        overwrite: whether to do again what is done, and to replace predictions made with other settings.

    Raises:
        LayoutError: the folder holds something else, or predictions made with other settings.
    """

    def __init__(
        self,
        out: Path,
        classes: Sequence[NamedClass],
        settings: Mapping[str, Any],
        *,
        overlays: bool = True,
        crops: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.out, self.classes, self.overwrite = out, tuple(classes), overwrite
        self.wanted = ([OVERLAYS] if overlays else []) + ([CROPS] if crops else [])
        about = {"format": FORMAT, "classes": [item.name for item in classes], **settings}
        before = _read_about(out)
        if before is not None and before != about:
            if not overwrite:
                changed = sorted(key for key in {*before, *about} if before.get(key) != about.get(key))
                raise LayoutError(
                    f"these predictions were made with other settings ({', '.join(changed)})",
                    where=out,
                    fix="name another folder with --out, or replace them with --overwrite",
                )
            for name in (DETECTIONS, OVERLAYS, CROPS):
                shutil.rmtree(out / name, ignore_errors=True)
        write_file(out / ABOUT, _json(about))

    def done(self, photo: PhotoFile) -> bool:
        """Whether everything wanted of a photo is there, made from the file as it is now.

        Raises:
            LayoutError: what is there is of another photo of this name.
        """
        if self.overwrite:
            return False
        try:
            content = orjson.loads(self._detections(photo).read_bytes())
            before, written = content["source"], set(content["written"])
            other = Path(before["file"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if other.exists() and not other.samefile(photo.path):
            raise LayoutError(
                f"there are results of another photo of this name ({other})",
                where=self._detections(photo),
                fix="predict both in one call, name another folder with --out, or use --overwrite",
            )
        return bool(before == _source(photo) and set(self.wanted) <= written)

    def write(self, photo: PhotoFile, prediction: Prediction) -> None:
        """Write everything of a photo; its detections last."""
        source = _source(photo)
        if OVERLAYS in self.wanted:
            with replacing_file(self.out / OVERLAYS / f"{photo.key}.jpg") as temporary:
                prediction.draw().save(temporary, "JPEG", quality=JPEG_QUALITY)
        if CROPS in self.wanted:
            folder = self.out / CROPS / photo.key
            shutil.rmtree(folder, ignore_errors=True)
            for row, name in enumerate(prediction.names):
                safe = "".join(letter if letter.isalnum() else "-" for letter in name)
                with replacing_file(folder / f"{row:03d}_{safe}.png") as temporary:
                    prediction.crop(row).save(temporary, "PNG")
        content = {"source": source, "written": self.wanted, **prediction.to_dict()}
        write_file(self._detections(photo), _json(content))

    def read(self, photo: PhotoFile) -> dict[str, Any]:
        """The detections of a photo that is done."""
        return _read_detections(self._detections(photo))

    def forget(self, photo: PhotoFile) -> None:
        """Remove what an earlier run found in a photo that can no longer be read."""
        self._detections(photo).unlink(missing_ok=True)

    def finish(self) -> Totals:
        """Write ``results.json`` and ``images.json`` for every photo of the folder."""
        images, objects, parts = [], 0, 0
        with replacing_file(self.out / RESULTS) as temporary, temporary.open("wb") as stream:
            stream.write(b"[")
            separator = b"\n"
            for image_id, path in enumerate(self._newest(), start=1):
                content = _read_detections(path)
                file, size = content["source"]["file"], (content["height"], content["width"])
                rows = [_coco(image_id, found) for found in content["detections"]]
                part_count = sum(found["kind"] == "part" for found in content["detections"])
                images.append({"id": image_id, "file_name": file, "height": size[0], "width": size[1]})
                parts, objects = parts + part_count, objects + len(rows) - part_count
                for row in rows:
                    stream.write(separator + orjson.dumps(row))
                    separator = b",\n"
            stream.write(b"\n]\n")
        categories = [
            {"id": item.category_id, "name": item.name, "supercategory": item.kind}
            | ({"parent_id": self.classes[item.owner].category_id} if item.owner >= 0 else {})
            for item in self.classes
        ]
        coco = {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": categories}
        write_file(self.out / IMAGES, _json(coco))
        return Totals(images=len(images), objects=objects, parts=parts)

    def _newest(self) -> list[Path]:
        """The detections of every photo; of one that two calls named differently, those written last."""
        newest: dict[str, tuple[int, Path]] = {}
        for path in (self.out / DETECTIONS).rglob("*.json"):
            file = os.path.realpath(_read_detections(path)["source"]["file"])
            newest[file] = max(newest.get(file, (0, path)), (path.stat().st_mtime_ns, path))
        return sorted(path for _, path in newest.values())

    def _detections(self, photo: PhotoFile) -> Path:
        return self.out / DETECTIONS / f"{photo.key}.json"


def _read_about(out: Path) -> dict[str, Any] | None:
    """The settings of an earlier run; None where there was none."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        content = orjson.loads((out / ABOUT).read_bytes())
        if content["format"] == FORMAT:
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise LayoutError("holds something other than predictions", where=out, fix="name a new folder with --out")


def _read_detections(path: Path) -> dict[str, Any]:
    """One photo's file, with at least the fields the results need.

    Raises:
        SourceError: it is not such a file.
    """
    try:
        content = orjson.loads(path.read_bytes())
        [content["source"]["file"], content["height"], content["width"]]
        for found in content["detections"]:
            _coco(0, found)
            found["kind"]
        return dict(content)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            "not the detections of a photo", where=path, fix="delete it and run again"
        ) from error


def _source(photo: PhotoFile) -> dict[str, Any]:
    status = photo.path.stat()
    return {"file": str(photo.path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _coco(image_id: int, found: Mapping[str, Any]) -> dict[str, Any]:
    mask = found["segmentation"]
    return {
        "image_id": image_id,
        "category_id": found["category_id"],
        "bbox": xyxy_to_xywh(found["box_xyxy"]),
        "score": found["score"],
    } | ({} if mask is None else {"segmentation": mask})


def _json(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
