"""Parsed datasets on disk against datasets that know more, or other images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from partseg.errors import PartsegError
from partseg.evaluation.parse_audit import ParseAudit, audit_parse
from partseg.evaluation.parsed_parts import parsed_parts
from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record

CATEGORIES = (
    Category(category_id=1, name="dog", kind="object"),
    Category(category_id=2, name="dog:head", kind="part", parent_id=1, group="novel"),
    Category(category_id=3, name="dog:leg", kind="part", parent_id=1),
)
Parts = list[tuple[int, tuple[float, float, float, float]]]


def dataset(
    folder: Path, images: Mapping[str, Parts | None], *, extra: dict[str, Any] | None = None, size: int = 40
) -> Dataset:
    """Images by file name with their parts; None stands for an image in which nothing was found."""
    with DatasetWriter(folder, name="d", categories=CATEGORIES, converter={}, image_source="x") as writer:
        for name, parts in images.items():
            if parts is None:
                writer.write("train", Record.dropped(name, "no-part-found", "nothing"))
                continue
            rows = [
                AnnotationRow(category_id=number, bbox_xywh=box, area=1, score=0.5, extra=extra)
                for number, box in parts
            ]
            image = ImageRow(file_name=name, height=size, width=size, source_key=name, pos_category_ids=(1,))
            writer.write("train", Record(image=image, annotations=tuple(rows)))
    return Dataset.open(folder, cache=folder.parent / "cache")


def audited(parsed: Dataset, truth: Dataset) -> ParseAudit:
    return audit_parse(parsed.split("train"), parsed.categories, truth.split("train"), truth.categories)


HEAD: Parts = [(2, (0, 0, 10, 10))]


def test_images_are_counted_once_each(tmp_path: Path) -> None:
    parsed = dataset(
        tmp_path / "parsed",
        {"n1/a.JPEG": HEAD, "n1/b.JPEG": None, "n1/c.JPEG": HEAD},
        extra={"path": "transfer", "confidence": 0.75, "base_image_id": 3},
    )
    truth = dataset(tmp_path / "truth", {"all/a.jpg": HEAD, "all/b.jpg": HEAD, "all/z.jpg": HEAD})
    found = audited(parsed, truth)
    images = found.images
    assert (images.parsed, images.nothing_found, images.known, images.known_nothing_found) == (2, 1, 2, 1)
    assert (images.not_in_truth, images.never_parsed, images.other_size) == (1, 1, 0)
    assert (found.quality.overall.precision, found.quality.overall.recall) == (1, 1 / 2)
    assert found.quality.groups["novel"].right == found.quality.paths["transfer"].right == 1
    found.check()
    part = parsed_parts(parsed.split("train"), parsed.categories)[0]
    assert (part.label, part.path, part.confidence, part.base_image_id) == ("dog", "transfer", 0.75, 3)


def test_a_truth_that_says_nothing_is_refused(tmp_path: Path) -> None:
    parsed = dataset(tmp_path / "parsed", {"a.jpg": HEAD})
    strangers = audited(parsed, dataset(tmp_path / "truth", {"b.jpg": HEAD}))
    with pytest.raises(
        PartsegError, match="none of the 1 parsed images is in the truth; images are known by"
    ):
        strangers.check()
    larger = audited(parsed, dataset(tmp_path / "larger", {"a.jpg": HEAD}, size=50))
    with pytest.raises(PartsegError, match="1 have other sizes there"):
        larger.check()
