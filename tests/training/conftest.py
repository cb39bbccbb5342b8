from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record, mask_to_rle

SIDE = 64


def shape_image(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image and the mask of one bright rectangle in it."""
    image = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
    h, w = random.integers(16, 32, 2)
    y, x = random.integers(0, height - h), random.integers(0, width - w)
    mask = np.zeros((height, width), dtype=bool)
    mask[y : y + h, x : x + w] = True
    image[mask] = (220, 180, 60)
    return image, mask


def annotation(category: int, mask: np.ndarray, parent: int | None = None, **more: object) -> AnnotationRow:
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    return AnnotationRow(
        category_id=category,
        bbox_xywh=tuple(map(float, box)),  # type: ignore[arg-type]
        area=float(mask.sum()),
        rle=mask_to_rle(mask),
        parent=parent,
        **more,  # type: ignore[arg-type]
    )


def write_dataset(folder: Path, images: int = 8) -> Dataset:
    """Rectangles called box, their upper halves called box:top; the last two images are special.

    The last but one has only a crowd; the last is empty but carries an image-level label.
    """
    random = np.random.default_rng(0)
    categories = [
        Category(category_id=3, name="box", kind="object"),
        Category(category_id=7, name="box:top", kind="part", parent_id=3),
        Category(category_id=9, name="thing", kind="object"),
    ]
    (folder / "images").mkdir(parents=True)
    with DatasetWriter(
        folder / "data", name="boxes", categories=categories, converter={"name": "test"}, image_source="boxes"
    ) as writer:
        for number in range(images):
            height, width = (SIDE, SIDE + 32) if number % 2 else (SIDE + 32, SIDE)
            pixels, mask = shape_image(random, height, width)
            name = f"{number}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            top = mask.copy()
            top[int(np.nonzero(mask)[0].mean()) :] = False
            annotations: tuple[AnnotationRow, ...] = (annotation(3, mask), annotation(7, top, parent=0))
            if number == images - 2:
                annotations = (annotation(3, mask, is_crowd=True),)
            if number == images - 1:
                annotations = ()
            image = ImageRow(
                file_name=name,
                height=height,
                width=width,
                sha256=None,
                source_key=name,
                pos_category_ids=(9, 3) if number == images - 1 else (),
            )
            writer.write("train", Record(image=image, annotations=annotations, findings=()))
    return Dataset.open(folder / "data", image_root=folder / "images", cache=folder / "cache")


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("boxes"))
