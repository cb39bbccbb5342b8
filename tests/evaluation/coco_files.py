"""COCO dictionaries as image records of the layout and tables of predictions, for tests against originals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from partseg.evaluation.predictions import Predictions, make

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
ORIGINAL = SHARED / "golden" / "eval" / "a"


def golden(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def rle_of(segmentation: Any, height: int, width: int) -> bytes:
    if isinstance(segmentation, list):
        return bytes(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))["counts"])
    if isinstance(segmentation["counts"], list):
        return bytes(coco_mask.frPyObjects(segmentation, height, width)["counts"])
    counts = segmentation["counts"]
    return counts.encode() if isinstance(counts, str) else bytes(counts)


def records(truth: dict[str, Any]) -> list[SimpleNamespace]:
    rows: dict[int, list[Any]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        rows[annotation["image_id"]].append(annotation)
    return [
        SimpleNamespace(
            image_id=image["id"],
            height=image["height"],
            width=image["width"],
            ann_ids=np.array([a["id"] for a in own], np.int64),
            category_ids=np.array([a["category_id"] for a in own], np.int32),
            boxes_xywh=np.array([a["bbox"] for a in own], float).reshape(-1, 4),
            areas=np.array([a["area"] for a in own], float),
            rles=[rle_of(a["segmentation"], image["height"], image["width"]) for a in own],
            is_crowd=np.array([bool(a.get("iscrowd", 0)) for a in own], bool),
            is_ignore=np.zeros(len(own), bool),
            neg_category_ids=image.get("neg_category_ids", ()),
            not_exhaustive_category_ids=image.get("not_exhaustive_category_ids", ()),
        )
        for image in truth["images"]
        for own in [rows[image["id"]]]
    ]


def predictions(results: list[dict[str, Any]]) -> Predictions:
    rles = [
        None if (s := row.get("segmentation")) is None else rle_of(s, s["size"][0], s["size"][1])
        for row in results
    ]
    probabilities = [row.get("attribute_probs") for row in results]
    return make(
        [row["image_id"] for row in results],
        [row["category_id"] for row in results],
        [row["score"] for row in results],
        np.array([row.get("bbox", (0, 0, 0, 0)) for row in results], float).reshape(-1, 4),
        rles,
        None if None in probabilities else probabilities,
    )


def categories(truth: dict[str, Any]) -> list[SimpleNamespace]:
    """Names with a colon are parts; of bus and dog, they are novel."""
    ids = {row["name"]: row["id"] for row in truth["categories"]}
    return [
        SimpleNamespace(
            category_id=row["id"],
            name=row["name"],
            kind="part" if ":" in row["name"] else "object",
            group=_group(row["name"]),
            frequency=row.get("frequency"),
            parent_id=ids.get(row["name"].split(":")[0]) if ":" in row["name"] else None,
        )
        for row in truth["categories"]
    ]


def _group(name: str) -> str | None:
    return None if ":" not in name else "novel" if name.split(":")[0] in ("bus", "dog") else "base"
