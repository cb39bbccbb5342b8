"""Images of COCO panoptic JSON files: records checked, segments matched with the pixels of their PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from partseg.datasets.formats.photos import Images, photo_digest, photo_missing
from partseg.layout import AnnotationRow, Finding, ImageRow, Record
from partseg.layout.label_images import read_colour_ids
from partseg.layout.records import PanopticMap
from partseg.layout.runs import Runs, runs_to_segments
from partseg.layout.segments import ANNOTATION

FIX = "unpack panoptic_annotations_trainval2017.zip, and the two zip files in it, into the raw folder"

_SEGMENT = ("id", "category_id", "iscrowd", "bbox", "area")
_LARGEST = 2**24 - 1  # three bytes of colour


class ImageReader:
    """Reads the images of one split.

    Args:
        root: the raw folder.
        maps: folder of the split's PNG files, relative to it.
        photos: folder of its photos.
        images: how closely photos are looked at.
        allow_missing: a missing photo or PNG becomes a finding instead of an error.
        categories: category by the source's id.
    """

    def __init__(
        self,
        root: Path,
        *,
        maps: str,
        photos: str,
        images: Images,
        allow_missing: bool,
        categories: Mapping[int | None, int],
    ) -> None:
        self._root, self._maps, self._photos = root, maps, photos
        self._images, self._allow_missing, self._categories = images, allow_missing, categories

    def record(self, key: str, image: dict[str, Any], annotations: Mapping[int, dict[str, Any]]) -> Record:
        """One image; ``annotations`` are those that refer to it, by their place in the file.

        Raises:
            SourceError: a file is missing or damaged.
        """
        problem = _image_problem(image)
        if not problem and key != str(image["id"]):
            problem = "another image has the same id"
        if problem:
            return Record.dropped(key, "bad-image-record", problem)
        if not annotations:
            return Record.dropped(key, "annotation-missing", "the image has no annotation")
        row, annotation = next(iter(annotations.items()))
        segments, name = annotation.get("segments_info"), annotation.get("file_name")
        if not isinstance(segments, list) or not _is_file_name(name):
            return Record.dropped(
                key, "bad-annotation", "its annotation names no map, or has no list of segments"
            )
        size = (image["height"], image["width"])
        photo = f"{self._photos}/{image['file_name']}"
        try:
            digest = photo_digest(self._root, photo, size, self._images)
        except FileNotFoundError:
            return photo_missing(self._root, photo, key, self._allow_missing, FIX)
        path = f"{self._maps}/{name}"
        if self._allow_missing and not (self._root / path).is_file():
            return Record.dropped(key, "map-missing", f"{path} is missing")
        runs = read_colour_ids(self._root / path)
        if (runs.height, runs.width) != size:
            message = f"the map is {runs.height}x{runs.width}, the image {size[0]}x{size[1]} (height x width)"
            return Record.dropped(key, "map-of-another-size", message)
        findings = [
            _finding(key, "second-annotation", f"annotation {other} is of the same image, and left out")
            for other in list(annotations)[1:]
        ]
        rows = self._segments(key, row, segments, runs, findings)
        return Record(
            image=ImageRow(
                file_name=photo,
                height=size[0],
                width=size[1],
                source_key=key,
                source_id=image["id"],
                sha256=digest,
                pos_category_ids=tuple(dict.fromkeys(item.category_id for item in rows)),
                extra=_image_extra(image, annotation, row, empty=not rows),
            ),
            annotations=rows,
            panoptic=PanopticMap(file_name=path, runs=runs),
            findings=findings,
        )

    def _segments(
        self, key: str, row: int, segments: list[Any], runs: Runs, findings: list[Finding]
    ) -> list[AnnotationRow]:
        """Rows of the segments that have pixels, in the order of the JSON."""
        found = runs_to_segments(runs)
        places = {label: place for place, label in enumerate(found.labels.tolist())}
        places.pop(0, None)
        rows = []
        for segment in segments:
            problem = _segment_problem(segment, self._categories)
            if problem:
                findings.append(_finding(key, "bad-segment", problem))
                continue
            place = places.pop(segment["id"], None)
            if place is None:
                message = f"segment {segment['id']} has no pixels, or occurs twice"
                findings.append(_finding(key, "segment-without-pixels", message))
                continue
            box, area = found.boxes_xywh[place].tolist(), int(found.areas[place])
            if segment.get("bbox", box) != box or segment.get("area", area) != area:
                message = f"segment {segment['id']} has {area} pixels in {box}, other than the JSON states"
                findings.append(_finding(key, "segment-disagrees", message))
            x, y, w, h = map(float, segment.get("bbox", box))
            rows.append(
                AnnotationRow(
                    category_id=self._categories[segment["category_id"]],
                    bbox_xywh=(x, y, w, h),
                    area=float(segment.get("area", area)),
                    rle=found.rles[place],
                    is_crowd=bool(segment.get("iscrowd", 0)),
                    source_id=segment["id"],
                    source_row=row,
                    extra=_segment_extra(segment),
                )
            )
        for label, place in places.items():
            message = f"{found.areas[place]} pixels have id {label}, which is no segment"
            findings.append(_finding(key, "pixels-without-segment", message))
        return rows


def _image_problem(image: dict[str, Any]) -> str | None:
    if not is_id(image.get("id")):
        return "the record has no id"
    if not all(is_id(image.get(side)) and 0 < image[side] < 2**16 for side in ("height", "width")):
        return "the record has no height and width"
    if not _is_file_name(image.get("file_name")):
        return "the record names no file"
    return None


def _segment_problem(segment: Any, known: Mapping[int | None, int]) -> str | None:
    """Why a segment cannot be used."""
    if not isinstance(segment, dict):
        return "a segment is not an object"
    if not is_id(segment.get("id")) or not 0 < segment["id"] <= _LARGEST:
        return f"{segment.get('id')!r} is not the id of a segment"
    if not is_id(segment.get("category_id")) or segment["category_id"] not in known:
        return f"segment {segment['id']} has the unknown category {segment.get('category_id')!r}"
    box = segment.get("bbox", [0, 0, 0, 0])
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, [*box, segment.get("area", 0)])):
        return f"segment {segment['id']} has no proper box or area"
    if segment.get("iscrowd", 0) not in (0, 1):
        return f"segment {segment['id']} has iscrowd {segment['iscrowd']!r}"
    return None


def _image_extra(
    image: dict[str, Any], annotation: dict[str, Any], row: int, *, empty: bool
) -> dict[str, Any]:
    """What an export needs beyond the columns; its annotation only where it is not the usual."""
    extra = {key: value for key, value in image.items() if key not in ("id", "height", "width")}
    rest = {
        key: value
        for key, value in annotation.items()
        if key not in ("image_id", "segments_info", "file_name")
    }
    if annotation["file_name"] != f"{PurePosixPath(image['file_name']).stem}.png":
        rest["file_name"] = annotation["file_name"]
    if empty:
        rest["row"] = row
    return {**extra, ANNOTATION: rest} if rest else extra


def _segment_extra(segment: dict[str, Any]) -> dict[str, Any] | None:
    extra = {key: value for key, value in segment.items() if key not in _SEGMENT}
    absent = [key for key in _SEGMENT if key not in segment]
    return ({**extra, "absent": absent} if absent else extra) or None


def _finding(key: str, reason: str, message: str) -> Finding:
    return Finding(source_key=key, reason=reason, message=message)


def is_id(value: Any) -> bool:
    """Whether a JSON value can be an id or a size."""
    return type(value) is int and 0 <= value < 2**62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**53  # nan is not


def _is_file_name(value: Any) -> bool:
    """Whether it is the name of a file below a folder, for all that can be told without looking."""
    if not isinstance(value, str) or "\0" in value:
        return False
    path = PurePosixPath(value)
    usable = all(part != ".." and len(part.encode()) < 256 for part in path.parts)
    return bool(path.name) and usable and not path.is_absolute() and len(path.parts) < 10
