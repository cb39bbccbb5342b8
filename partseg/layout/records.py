"""What a converter hands to the writer: plain values, one record per source image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from partseg.layout.runs import Runs

Kind = Literal["object", "part", "stuff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One row of the category table, which holds objects, parts and stuff together.

    Attributes:
        category_id: stable id, at least 1.
        name: unique name; parts are written ``object:part``.
        kind: object, part or stuff.
        parent_id: the object a part belongs to.
        group: "base" or "novel" where a benchmark splits its vocabulary.
        source_id: the id in the source, where it has one.
        source_name: the name in the source, where it differs from ``name``.
        colour: 0xRRGGBB.
        extra: fields of the source that the layout does not model.
    """

    category_id: int
    name: str
    kind: Kind
    parent_id: int | None = None
    group: str | None = None
    supercategory: str | None = None
    synset: str | None = None
    frequency: str | None = None
    synonyms: tuple[str, ...] = ()
    is_thing: bool = True
    colour: int | None = None
    source_id: int | None = None
    source_name: str | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    """One object, part or stuff segment.

    Attributes:
        bbox_xywh: pixels; the box of a mask counts its last row and column (width = xmax - xmin + 1).
        area: mask area in pixels, or box area where there is no mask; as the source states it, if it does.
        rle: COCO compressed counts for the size of the image; None where the source has only a box.
        polygons: the source's outlines, each x, y, x, y, ... in pixels; None where it has none. The mask they
            enclose is in ``rle`` as well.
        parent: position of the object in ``Record.annotations``, before this row; None for an object.
        attributes: attribute ids of the source.
        score: confidence of a pseudo-label; None for a person's work.
        source_id: the annotation's id in the source. With panoptic maps, the value of its pixels.
        source_row: its place in the source's list; None where the source does not have this annotation and it
            was derived, such as an object that is the union of its parts.
        extra: fields of the source that the layout does not model.
    """

    category_id: int
    bbox_xywh: tuple[float, float, float, float]
    area: float
    rle: bytes | None = None
    polygons: Sequence[Sequence[float] | NDArray[np.float64]] | None = None
    parent: int | None = None
    is_crowd: bool = False
    is_ignore: bool = False
    attributes: tuple[int, ...] = ()
    score: float | None = None
    source_id: int | None = None
    source_row: int | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image.

    Attributes:
        file_name: posix path relative to the root of the raw source that holds the images.
        height: pixels, after the EXIF orientation has been applied; so is ``width``.
        sha256: digest of the image file.
        pos_category_ids: image-level labels that hold.
        neg_category_ids: categories checked and absent (LVIS).
        not_exhaustive_category_ids: categories of which some instances are not annotated (LVIS).
        group: city, video or scene; a split never cuts one.
        source_key: the record's name in the source, unique in its split.
        source_id: its id in the source, where that has ids.
    """

    file_name: str
    height: int
    width: int
    source_key: str
    source_id: int | None = None
    sha256: bytes | None = None
    pos_category_ids: tuple[int, ...] = ()
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()
    group: str | None = None
    licence: str | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something dropped or repaired on the way, so that nothing vanishes silently.

    Attributes:
        reason: short code that is counted in the manifest, such as "part-without-category".
        message: one sentence for a person.
        image_dropped: the whole image is missing from the dataset because of this.
    """

    source_key: str
    reason: str
    message: str
    image_dropped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticMap:
    """Which pixel belongs to which annotation.

    Attributes:
        file_name: posix path of the map's file relative to the root of the raw source.
        runs: column-major runs over the ids of the source: COCO's segment ids, or panoptic-parts uids. The
            pixels of an annotation have its ``source_id``, except where one of its parts covers them.
    """

    file_name: str
    runs: Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything known about one source image; ``image`` is None where it was dropped."""

    image: ImageRow | None
    annotations: Sequence[AnnotationRow] = ()
    panoptic: PanopticMap | None = None
    findings: Sequence[Finding] = ()

    @classmethod
    def dropped(cls, key: str, reason: str, message: str, others: Sequence[Finding] = ()) -> Record:
        """An image that cannot be used.

        Args:
            key: the record's name in the source.
            reason: short code, as in :class:`Finding`.
            message: one sentence for a person.
            others: what was found before that.
        """
        finding = Finding(source_key=key, reason=reason, message=message, image_dropped=True)
        return cls(image=None, findings=(*others, finding))
