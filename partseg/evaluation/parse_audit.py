"""A parsed dataset against one that knows the true parts of some of its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from partseg.errors import PartsegError
from partseg.evaluation.instance_truth import CategoryLike
from partseg.evaluation.paired_images import ImageName, image_names, pair_images
from partseg.evaluation.parse_matching import KnownImage, TruePart
from partseg.evaluation.parse_quality import ParseQuality, parse_quality
from partseg.evaluation.parsed_parts import first_label, parsed_parts, without_parts
from partseg.layout import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedImages:
    """How many images there are to compare.

    Attributes:
        parsed: images with parsed parts.
        nothing_found: images in which the parser found no part.
        known: those of both kinds that the truth has.
        known_nothing_found: those of them in which it found nothing.
        not_in_truth: those of both kinds that the truth does not have.
        other_size: those of them whose name belongs to an image of another size.
        never_parsed: images of the truth that the parser did not look at; they do not count.
    """

    parsed: int
    nothing_found: int
    known: int
    known_nothing_found: int
    not_in_truth: int
    other_size: int
    never_parsed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseAudit:
    """How good a parse is, and on how many images that is known.

    Attributes:
        images: counts.
        quality: of the known ones.
        names: names of parts that both vocabularies have.
    """

    images: AuditedImages
    quality: ParseQuality
    names: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"images": asdict(self.images), "names_in_common": self.names, **self.quality.as_dict()}

    def check(self, where: object = None) -> None:
        """Refuse a truth that says nothing about the parse.

        Raises:
            PartsegError: no image or no name is in both.
        """
        if not self.images.known:
            sizes = f"; {self.images.other_size} have other sizes there" if self.images.other_size else ""
            raise PartsegError(
                f"none of the {self.images.not_in_truth:,} parsed images is in the truth{sizes}",
                where=where,
                fix="images are known by file name, source key, or file name without folder and suffix",
            )
        if not self.names:
            raise PartsegError(
                "no part of the parse has a name that the truth has, too",
                where=where,
                fix="take a truth with the vocabulary that the parse was written in",
            )


def audit_parse(
    parsed: Split,
    parsed_categories: Sequence[CategoryLike],
    truth: Split,
    truth_categories: Sequence[CategoryLike],
) -> ParseAudit:
    """Compare a parsed split with true parts.

    Args:
        parsed: written by a parse stage.
        parsed_categories: its category table.
        truth: some or all of the same images, and any others.
        truth_categories: its category table; only parts count.
    """
    dropped = without_parts(parsed)
    names = [*image_names(parsed), *(ImageName(file_name=key, source_key=key) for key in dropped)]
    pairs = pair_images(names, image_names(truth))
    known = list(_known(parsed, parsed_categories, truth, truth_categories, pairs.rows))
    groups = {
        category.name: category.group
        for category in (*parsed_categories, *truth_categories)
        if category.kind == "part" and category.group
    }
    own, there = (
        {category.name.lower() for category in table if category.kind == "part"}
        for table in (parsed_categories, truth_categories)
    )
    quality = parse_quality(
        known, parsed_parts(parsed, parsed_categories), _true_parts(truth, truth_categories, known), groups
    )
    return ParseAudit(
        images=AuditedImages(
            parsed=len(parsed),
            nothing_found=len(dropped),
            known=len(known),
            known_nothing_found=sum(image.image is None for image in known),
            not_in_truth=len(names) - len(known),
            other_size=pairs.other_size,
            never_parsed=len(truth) - len(known),
        ),
        quality=quality,
        names=len(own & there),
    )


def _known(
    parsed: Split,
    parsed_categories: Sequence[CategoryLike],
    truth: Split,
    truth_categories: Sequence[CategoryLike],
    rows: Sequence[int | None],
) -> Iterator[KnownImage]:
    """Images that both have; what nothing was found in is labelled as the truth says."""
    own = {category.category_id: category for category in parsed_categories}
    there = {category.category_id: category for category in truth_categories}
    for image, row in enumerate(rows):
        if row is None:
            continue
        record = truth[row]
        found = image < len(parsed)
        yield KnownImage(
            image=image if found else None,
            truth=row,
            label=first_label(parsed[image], own) if found else first_label(record, there),
            size=(int(record.height), int(record.width)),
        )


def _true_parts(
    truth: Split, categories: Sequence[CategoryLike], known: Sequence[KnownImage]
) -> Iterator[TruePart]:
    table = {category.category_id: category for category in categories}
    for image in known:
        record = truth[image.truth]
        for row, category_id in enumerate(record.category_ids.tolist()):
            if table[category_id].kind == "part":
                yield TruePart(
                    image=image.truth,
                    name=table[category_id].name,
                    box_xywh=tuple(record.boxes_xywh[row].tolist()),
                    rle=record.rles[row],
                    is_ignore=bool(record.is_ignore[row]),
                    is_crowd=bool(record.is_crowd[row]),
                )
