"""A small dataset of cats and dogs with parts, and predictions with mistakes that are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from partseg.evaluation.predictions import Predictions, make
from partseg.layout import (
    AnnotationRow,
    Category,
    Dataset,
    DatasetWriter,
    ImageRow,
    Record,
    mask_to_rle,
)

SIZE = 40
CATEGORIES = (
    Category(category_id=1, name="cat", kind="object", source_id=17),
    Category(category_id=2, name="cat:head", kind="part", parent_id=1, group="base", source_id=5),
    Category(category_id=3, name="cat:tail", kind="part", parent_id=1, group="base", source_id=6),
    Category(category_id=4, name="dog", kind="object", source_id=18),
    Category(category_id=5, name="dog:head", kind="part", parent_id=4, group="novel", source_id=7),
)
Box = tuple[int, int, int, int]
HEAD, TAIL, BODY = (4, 4, 12, 12), (24, 20, 8, 6), (2, 2, 34, 30)


def rle(box: Box) -> bytes:
    """A rectangle: x, y, width, height."""
    mask = np.zeros((SIZE, SIZE), bool)
    x, y, width, height = box
    mask[y : y + height, x : x + width] = True
    return mask_to_rle(mask)


def annotation(category_id: int, box: Box, parent: int | None = None) -> AnnotationRow:
    x, y, width, height = map(float, box)
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=(x, y, width, height),
        area=width * height,
        rle=rle(box),
        parent=parent,
    )


def make_dataset(folder: Path, images: int = 8, *, source_ids: bool = True) -> Dataset:
    """Cats with head and tail, and dogs with heads, in turn; ids of the source are 100, 101, ..."""
    root = folder / "raw"
    root.mkdir(parents=True)
    writing = DatasetWriter(
        folder / "data", name="pets", categories=CATEGORIES, converter={"name": "pets"}, image_source="raw"
    )
    with writing as writer:
        for number in range(images):
            pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{number}.png")
            rows: tuple[AnnotationRow, ...]
            if number % 2 == 0:
                rows = (annotation(1, BODY), annotation(2, HEAD, 0), annotation(3, TAIL, 0))
            else:
                rows = (annotation(4, BODY), annotation(5, HEAD, 0))
            image = ImageRow(
                file_name=f"{number}.png",
                height=SIZE,
                width=SIZE,
                source_key=f"2008_{number:06d}",
                source_id=100 + number if source_ids else None,
            )
            writer.write("val", Record(image=image, annotations=rows))
    return Dataset.open(folder / "data", image_root=root, cache=folder / "cache")


def predicted(rows: Sequence[tuple[int, int, float, Box]]) -> Predictions:
    """Predictions from (image id, category id, score, box)."""
    return make(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        [rle(row[3]) for row in rows],
    )


def guesses(dataset: Dataset, seed: int, noise: float) -> Predictions:
    """The truth, moved at random, with some of it missing and some made up; more noise is worse."""
    random = np.random.default_rng(seed)
    rows = []
    for record in dataset.split("val"):
        for category, box in zip(record.category_ids.tolist(), record.boxes_xywh.tolist(), strict=True):
            if random.random() < noise / 10:
                continue
            x, y, width, height = (int(value) for value in box)
            x = int(np.clip(x + round(random.normal(0, noise)), 0, SIZE - width))
            y = int(np.clip(y + round(random.normal(0, noise)), 0, SIZE - height))
            rows.append((record.image_id, category, float(random.uniform(0.3, 1)), (x, y, width, height)))
            if random.random() < 0.2:
                rows.append((record.image_id, category, float(random.uniform(0, 0.6)), (30, 1, 6, 6)))
    return predicted(rows)
