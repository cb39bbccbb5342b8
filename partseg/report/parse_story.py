"""How single images got their part labels: the parser asked again, and what it went through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from partseg.layout import Category, Record, Split, rle_to_mask
from partseg.report.overlays import Shape
from partseg.report.parse_pictures import KeptPart, Lender, Panel, detector_panels, transfer_panels

if TYPE_CHECKING:
    from partseg.parsing.parser import Parser
    from partseg.parsing.parts import Transfer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Story:
    """One image's way to its parts.

    Attributes:
        key: source key of the image.
        label: its label, empty where it has none.
        path: "detector", "transfer" or empty.
        kept: parts that are written.
        transferred: parts that were lent and found in the image; None on the detector's path.
        base: names of the base images, the most similar first.
        similarity: cosines of their class tokens with the image's.
        message: why nothing is written; empty if something is.
        panels: pictures.
    """

    key: str
    label: str
    path: str
    kept: tuple[KeptPart, ...]
    transferred: int | None
    base: tuple[str, ...]
    similarity: tuple[float, ...]
    message: str
    panels: tuple[Panel, ...]

    @property
    def confidence(self) -> float | None:
        """Mean over the parts; None without any."""
        return sum(part.confidence for part in self.kept) / len(self.kept) if self.kept else None

    @property
    def heading(self) -> str:
        """Image and label."""
        return f"{self.key} · {self.label}" if self.label else self.key

    @property
    def text(self) -> str:
        """All there is to say in one line."""
        counts = f"{len(self.kept)} kept"
        if self.transferred is not None:
            counts = f"{self.transferred} transferred, {counts}"
        parts = [f"by {self.path}" if self.path else "not parsed"]
        if self.base:
            parts.append(f"base image {self.base[0]}, similarity {self.similarity[0]:.2f}")
            if len(self.base) > 1:
                more = len(self.base) - 1
                parts.append(f"{more} more base image{'s' * (more != 1)}")
        parts.append(counts)
        if self.confidence is not None:
            parts.append(f"mean confidence {self.confidence:.2f}")
        if self.message:
            parts.append(self.message)
        return "; ".join(parts)


def tell(
    parser: Parser,
    images: Split,
    row: int,
    *,
    labels: Mapping[int, str],
    written: Mapping[int, str],
    base: Split | None = None,
    base_categories: Mapping[int, Category] | None = None,
) -> Story:
    """Parse one image and draw what happened.

    Args:
        parser: as the stage has it.
        images: the labelled images.
        row: which of them.
        labels: names of the categories that they are labelled with.
        written: names of the categories that are written.
        base: the split of the base images, where there is transfer.
        base_categories: the categories there.
    """
    record, photo = images[row], images.read_image(row)
    made = parser.records(images, [row])[0]
    kept = tuple(_kept(made, written))
    found = parser.explain(images, row)
    lenders: list[Lender] = []
    if found is None:
        panels = detector_panels(photo, kept)
    else:
        assert parser.base is not None, "only a parser with base images transfers"
        assert base is not None
        foreground = parser.base.describer.foreground(found.query).cpu().numpy()
        lenders = _lenders(found, base, base_categories or {})
        panels = transfer_panels(photo, found, foreground, lenders, kept)
    return Story(
        key=record.source_key,
        label=labels[int(record.pos_category_ids[0])] if len(record.pos_category_ids) else "",
        path="transfer" if found is not None else "detector" if len(record.pos_category_ids) else "",
        kept=kept,
        transferred=None if found is None else int(found.moved.patches.flatten(1).any(dim=1).sum()),
        base=tuple(lender.name for lender in lenders),
        similarity=() if found is None else found.lender_cosines,
        message="" if made.image else made.findings[0].message,
        panels=tuple(panels),
    )


def _kept(made: Record, written: Mapping[int, str]) -> list[KeptPart]:
    """The parts of a record: what came from somewhere; its object is only their union."""
    if made.image is None:
        return []
    size = made.image.height, made.image.width
    return [
        KeptPart(
            name=written[row.category_id],
            box_xywh=row.bbox_xywh,
            mask=None if row.rle is None else rle_to_mask(row.rle, *size),
            confidence=float((row.extra or {}).get("confidence", row.score or 0.0)),
        )
        for row in made.annotations
        if "path" in (row.extra or {})
    ]


def _lenders(found: Transfer, base: Split, categories: Mapping[int, Category]) -> list[Lender]:
    """The base images of a transfer with all parts that they can lend."""
    ids = base.batch("images")["image_id"].to_numpy()
    lenders = []
    for lender in found.lenders:
        row = int(np.flatnonzero(ids == lender.image_id)[0])
        record, wanted = base[row], set(lender.category_ids)
        shapes = [
            Shape(
                mask=rle_to_mask(rle, record.height, record.width),
                name=categories[category_id].name,
            )
            for category_id, rle in zip(record.category_ids.tolist(), record.rles, strict=True)
            if category_id in wanted and rle is not None
        ]
        names = [categories[category_id].name for category_id in lender.category_ids]
        lenders.append(Lender(name=record.source_key, image=base.read_image(row), parts=shapes, names=names))
    return lenders
