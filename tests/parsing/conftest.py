from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from partseg.layout import (
    AnnotationRow,
    Category,
    Dataset,
    DatasetWriter,
    ImageRow,
    Record,
    mask_to_rle,
    rle_bbox,
)
from partseg.parsing.base_images import BaseImages
from partseg.parsing.config import DescriptorConfig, ParserConfig, PictureSize, ViTConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.index import build_index
from partseg.parsing.parser import Parser
from partseg.parsing.parts import Base, Candidates, Detector, FoundParts
from partseg.parsing.vit import build_vit

CATEGORIES = (
    Category(category_id=1, name="cat", kind="object"),
    Category(category_id=2, name="cat:head", kind="part", parent_id=1, group="base"),
    Category(category_id=3, name="cat:torso", kind="part", parent_id=1, group="base"),
    Category(category_id=4, name="dog", kind="object"),
    Category(category_id=5, name="dog:head", kind="part", parent_id=4, group="novel"),
    Category(category_id=6, name="dog:torso", kind="part", parent_id=4, group="novel"),
)
SIZE = 48


def picture(shift: int, red: int = 200) -> np.ndarray:
    """A square head above a broad body, on a grey ground."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[6:18, 10 + shift : 22 + shift] = (red, 40, 40)
    image[18:40, 6 + shift : 34 + shift] = (40, red, 60)
    return image


def masks(shift: int) -> list[np.ndarray]:
    head, body = np.zeros((2, SIZE, SIZE), bool)
    head[6:18, 10 + shift : 22 + shift] = True
    body[18:40, 6 + shift : 34 + shift] = True
    return [head, body]


def rows(shift: int) -> tuple[AnnotationRow, ...]:
    head, body = masks(shift)
    made = []
    for category_id, mask, parent in ((1, head | body, None), (2, head, 0), (3, body, 0)):
        rle = mask_to_rle(mask)
        box = tuple(float(v) for v in rle_bbox(rle, SIZE))
        made.append(
            AnnotationRow(
                category_id=category_id, bbox_xywh=box, area=float(mask.sum()), rle=rle, parent=parent
            )  # type: ignore[arg-type]
        )
    return tuple(made)


@pytest.fixture
def base_dataset(tmp_path: Path) -> Dataset:
    """Three annotated cats, of which the first has two objects and cannot be a base image."""
    root = tmp_path / "raw_base"
    root.mkdir()
    with DatasetWriter(
        tmp_path / "base", name="base", categories=CATEGORIES, converter={"name": "test"}, image_source="raw"
    ) as writer:
        for i, shift in enumerate((0, 0, 8)):
            Image.fromarray(picture(shift)).save(root / f"{i}.png")
            annotations = rows(shift)
            if i == 0:
                annotations = (*annotations, annotations[0])
            image = ImageRow(file_name=f"{i}.png", height=SIZE, width=SIZE, source_key=str(i))
            writer.write("train", Record(image=image, annotations=annotations))
    return Dataset.open(tmp_path / "base", image_root=root, cache=tmp_path / "cache")


@pytest.fixture
def labelled_dataset(tmp_path: Path) -> Dataset:
    """Ten images with a label only: dog and cat in turn, the last one without any label."""
    root = tmp_path / "raw_labelled"
    root.mkdir()
    with DatasetWriter(
        tmp_path / "labelled", name="labelled", categories=CATEGORIES, converter={}, image_source="folder"
    ) as writer:
        for i in range(10):
            Image.fromarray(picture(i % 9, red=200 - i)).save(root / f"{i}.png")
            labels = () if i == 9 else ((4,) if i % 2 == 0 else (1,))
            image = ImageRow(
                file_name=f"{i}.png", height=SIZE, width=SIZE, source_key=str(i), pos_category_ids=labels
            )
            writer.write("train", Record(image=image))
    return Dataset.open(tmp_path / "labelled", image_root=root, cache=tmp_path / "cache")


@pytest.fixture
def describer() -> Describer:
    torch.manual_seed(0)
    model = build_vit(ViTConfig(patch_size=4, dim=32, depth=2, heads=2, image_size=48))
    config = DescriptorConfig(
        stride=4, short_side=48, long_side=96, saliency_heads=(0, 1), saliency_threshold=0
    )
    return Describer(model, config)


class FakeDetector:
    """Knows where the head and the body of :func:`picture` are, by their colours."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.names = ["cat:head", "cat:body"]
        self.candidate_names = ["cat:head", "cat:body"]

    def _boxes(self, image: Tensor) -> Tensor:
        red = (image[0] > 120) & (image[1] < 100)
        green = (image[1] > 120) & (image[0] < 100)
        found = []
        for mask in (red, green):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            found.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        return torch.tensor(found, dtype=torch.float32)

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        self.batches.append(len(images))
        return [
            FoundParts(
                boxes=self._boxes(image),
                scores=torch.tensor([0.9, 0.8]),
                names=self.names,
                rles=[
                    mask_to_rle(((image[0] > 120) & (image[1] < 100)).numpy()),
                    None,
                ],
            )
            for image in images
        ]

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        scores = torch.tensor([0.9, 0.8])
        return [
            Candidates(boxes=self._boxes(image), names=self.candidate_names, scores=scores)
            for image in images
        ]


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


def base_of(dataset: Dataset, describer: Describer) -> Base:
    """The base images of :func:`base_dataset`, which lend a cat's head and torso."""
    split = dataset.split("train")
    index = build_index(split, describer, object_ids={1, 4}, part_ids={2, 3})
    return Base(
        index=index,
        images=BaseImages(split, index, describer, part_ids={2, 3}),
        describer=describer,
        part_names={c.category_id: c.name for c in CATEGORIES if c.kind == "part"},
    )


def parser_of(
    base: Base | None,
    detector: Detector,
    *,
    by_detector: Collection[str] = ("cat",),
    finds_objects: bool = False,
    categories: Sequence[Category] = CATEGORIES,
    **options: Any,
) -> Parser:
    """A parser with some options; dogs are transferred to, unless ``by_detector`` says otherwise."""
    return Parser(
        ParserConfig(**options),
        detector=detector,
        reading=PictureSize(short_side=SIZE),
        base=base,
        by_detector=by_detector,
        finds_objects=finds_objects,
        labels={1: "cat", 4: "dog"},
        categories=categories,
    )


@pytest.fixture
def base(base_dataset: Dataset, describer: Describer) -> Base:
    return base_of(base_dataset, describer)


@pytest.fixture
def open_writer(tmp_path: Path) -> Callable[..., DatasetWriter]:
    def make(name: str, categories: Sequence[Category] = CATEGORIES) -> DatasetWriter:
        return DatasetWriter(
            tmp_path / name,
            name=name,
            categories=categories,
            converter={"name": "partseg.parsing.parser"},
            image_source="folder",
            origin="parse",
            run_id="abc",
        )

    return make
