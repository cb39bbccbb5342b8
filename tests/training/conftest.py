from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record, mask_to_rle
from partseg.vocabulary import EmbeddingTable, build_table

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


@pytest.fixture(scope="session")
def table(boxes: Dataset) -> EmbeddingTable:
    return build_table([c.name for c in boxes.categories], encoder="offline:32")


def write_photos(folder: Path) -> Dataset:
    """Two photos as JPEG, the second turned by EXIF: outlines and run-lengths, a crowd, an ignored box.

    The categories are dog (1), dog:head (2) and cat (3); cats are rare.
    """
    random = np.random.default_rng(4)
    categories = [
        Category(category_id=1, name="dog", kind="object"),
        Category(category_id=2, name="dog:head", kind="part", parent_id=1),
        Category(category_id=3, name="cat", kind="object"),
    ]
    (folder / "images").mkdir(parents=True)
    height, width = 60, 80
    ring = np.array([10.25, 5, 70.5, 8, 60, 41.75, 22, 58])
    mask = np.zeros((height, width), dtype=bool)
    mask[20:33, 30:51] = True
    with DatasetWriter(
        folder / "data",
        name="photos",
        categories=categories,
        converter={"name": "test"},
        image_source="photos",
    ) as writer:
        for number in range(2):
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            photo, exif = Image.fromarray(pixels).resize((width, height)), Image.Exif()
            if number:
                exif[0x0112] = 6  # to be turned right by a quarter
                photo = photo.transpose(Image.Transpose.ROTATE_90)
            photo.save(folder / "images" / f"{number}.jpg", quality=90, exif=exif)
            outlined = annotation(1, mask, polygons=(ring,))
            partly = replace(annotation(2, mask, parent=0), bbox_xywh=(70.1, 50.3, 25.7, 20.2))
            crowd, ignored = annotation(3, mask, is_crowd=True), annotation(1, mask, is_ignore=True)
            image = ImageRow(
                file_name=f"{number}.jpg", height=height, width=width, sha256=None, source_key=str(number)
            )
            rows = (outlined, partly, *((crowd, ignored) if number else ()))
            writer.write("train", Record(image=image, annotations=rows, findings=()))
    return Dataset.open(folder / "data", image_root=folder / "images", cache=folder / "cache")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_photos(tmp_path_factory.mktemp("photos"))
