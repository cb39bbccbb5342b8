"""The parts of a parsed dataset with what the parser said about each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from partseg.evaluation.instance_truth import CategoryLike
from partseg.layout import Split

NOTHING_FOUND = "no-part-found"
"""Reason of the finding that stands for an image in which the parser found no part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParsedPart:
    """One pseudo-labelled part.

    Attributes:
        image: row of its image in the split.
        name: category name, "object:part".
        label: first image-level label of the image; empty where it has none.
        path: "detector" or "transfer": what found it; "unknown" in datasets that do not say.
        box_xywh: pixels.
        rle: COCO compressed counts, or None.
        confidence: 0 to 1; the score where the parser states no confidence.
        base_image_id: who lent it, in the base dataset; None where no image did.
        base_similarity: cosine of the class tokens of this image and the base image, or None.
    """

    image: int
    name: str
    label: str
    path: str
    box_xywh: tuple[float, float, float, float]
    rle: bytes | None
    confidence: float
    base_image_id: int | None = None
    base_similarity: float | None = None


def parsed_parts(split: Split, categories: Sequence[CategoryLike]) -> list[ParsedPart]:
    """All parts of a parsed split, image after image.

    Args:
        split: written by a parse stage; another dataset with scores will do.
        categories: its category table.
    """
    return list(_parts(split, categories))


def _parts(split: Split, categories: Sequence[CategoryLike]) -> Iterator[ParsedPart]:
    table = {category.category_id: category for category in categories}
    extras = _extras(split)
    for image, record in enumerate(split):
        label = first_label(record, table)
        for row, category_id in enumerate(record.category_ids.tolist()):
            if table[category_id].kind != "part":
                continue
            said = extras.get(int(record.ann_ids[row]), {})
            score = float(record.scores[row])
            yield ParsedPart(
                image=image,
                name=table[category_id].name,
                label=label,
                path=str(said.get("path", "unknown")),
                box_xywh=tuple(record.boxes_xywh[row].tolist()),
                rle=record.rles[row],
                confidence=float(said.get("confidence", 1.0 if score != score else score)),
                base_image_id=said.get("base_image_id"),
                base_similarity=said.get("base_similarity"),
            )


def _extras(split: Split) -> dict[int, dict[str, Any]]:
    table = split.table("annotations").select(["ann_id", "extra"])
    columns = (table.column("ann_id").to_pylist(), table.column("extra").to_pylist())
    return {ann_id: orjson.loads(text) for ann_id, text in zip(*columns, strict=True) if text}


def first_label(record: Any, categories: Mapping[int, CategoryLike]) -> str:
    """The first image-level label of an image, which is the one a parser goes by; empty without one."""
    labels = record.pos_category_ids
    return categories[int(labels[0])].name if len(labels) else ""


def without_parts(split: Split) -> list[str]:
    """Source keys of the images in which the parser looked for parts and found none."""
    findings = split.findings()
    pairs = zip(findings.column("source_key").to_pylist(), findings.column("reason").to_pylist(), strict=True)
    return [key for key, reason in pairs if reason == NOTHING_FOUND]
