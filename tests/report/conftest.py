from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partseg.evaluation.coco import evaluate
from partseg.evaluation.predictions import make
from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record, mask_to_rle
from partseg.report.content import ModelEntry, ParsedEntry, Published

CATEGORIES = (
    Category(category_id=1, name="cat", kind="object"),
    Category(category_id=2, name="cat:head", kind="part", parent_id=1, group="base"),
    Category(category_id=3, name="cat:<tail>", kind="part", parent_id=1, group="base"),
    Category(category_id=4, name="dog", kind="object"),
    Category(category_id=5, name="dog:head", kind="part", parent_id=4, group="novel"),
    Category(category_id=6, name="dog:tail", kind="part", parent_id=4, group="novel"),
)
SIZE = 32


def _row(category_id: int, x: int, y: int, w: int, h: int, parent: int | None) -> AnnotationRow:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + h, x : x + w] = True
    return AnnotationRow(
        category_id=category_id,
        bbox_xywh=(x, y, w, h),
        area=float(w * h),
        rle=mask_to_rle(mask),
        parent=parent,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six images, cats and dogs in turn, each with a head and a tail."""
    root = tmp_path / "raw"
    root.mkdir()
    rng = np.random.default_rng(0)
    with DatasetWriter(
        tmp_path / "data", name="d", categories=CATEGORIES, converter={}, image_source="raw"
    ) as writer:
        for i in range(6):
            first = 1 if i % 2 == 0 else 4
            Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / f"{i}.png")
            rows = (
                _row(first, 2, 2, 24, 20, None),
                _row(first + 1, 4, 4, 10, 10, 0),
                _row(first + 2, 20, 14, 4, 6, 0),
            )
            image = ImageRow(
                file_name=f"{i}.png", height=SIZE, width=SIZE, source_key=str(i), pos_category_ids=(first,)
            )
            writer.write("val", Record(image=image, annotations=rows))
    return Dataset.open(tmp_path / "data", image_root=root, cache=tmp_path / "cache")


@pytest.fixture
def inputs(tmp_path: Path, dataset: Dataset) -> dict[str, Any]:
    """Arguments of ``build``: two models, of which the second finds every head."""
    split = dataset.split("val")
    heads = [(r.image_id, int(r.category_ids[1]), r.boxes_xywh[1], r.rles[1]) for r in split]

    def model(name: str, kept: list[Any]) -> ModelEntry:
        predictions = make(
            [k[0] for k in kept],
            [k[1] for k in kept],
            [0.9] * len(kept),
            [k[2] for k in kept],
            [k[3] for k in kept],
        )
        results = [evaluate(split, CATEGORIES, predictions, iou_type=kind) for kind in ("segm", "bbox")]
        return ModelEntry(name=name, description="for a test", results=results, predictions=predictions)

    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        "".join(
            json.dumps({"iteration": i, "loss": 2 / i, "loss_cls": 1 / i, "lr": 0.1}) + "\n"
            for i in range(1, 9)
        )
    )
    return {
        "title": "Heads & <tails>",
        "summary": "A test.",
        "models": [model("base", heads[::2]), model("joint", heads)],
        "split": split,
        "categories": CATEGORIES,
        "curves": {"train": metrics},
        "parsed": ParsedEntry(split=split, categories=CATEGORIES, truth=split, truth_categories=CATEGORIES),
        "notes": [("Text", "offline encoder")],
        "published": [Published(model="joint", measure="segm/novel/AP50", value=49.0, source="a paper")],
        "examples": 2,
    }
