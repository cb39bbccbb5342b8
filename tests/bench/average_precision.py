"""COCO and LVIS average precision of masks beside pycocotools and lvis-api, on a made-up load of real size.

    python -m tests.bench.average_precision [--lvis-api DIR] [--images 1000] [--runs 3]

lvis-api is read from a clone that the argument (or ``$LVIS_API``) names; without one, LVIS is left out. Both
sides begin with everything in memory: the originals with dictionaries and lists of results, partseg with
image records and a table of predictions. They take turns in one process, and their numbers have to be equal.
Times are processor seconds, the least of all runs; memory is the peak of what Python and numpy allocate
beyond the input.

Shapes are smooth blobs whose sizes are spread like those of COCO's sample results (radius 6, 19 and 92 pixels
at 10, 50 and 90 %). Of 100 predictions per COCO image, 45 are in a category that the image has, 24 of them
beside a true object of theirs; of 300 per LVIS image, 52 and 30.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from partseg.evaluation.coco import CocoAP
from partseg.evaluation.instance_run import run
from partseg.evaluation.lvis import LvisAP
from partseg.evaluation.predictions import Predictions, make

HEIGHT, WIDTH = 480, 640
SHAPES = 400


class Load:
    """Images, categories and predictions.

    Args:
        images: number of images.
        classes: number of categories.
        found: predictions per image.
        true: true objects per image, on average.
        kinds: categories that occur in an image.
        near: share of the predictions that are shifted true objects.
        right: share of those that have the right category.
        present: share of the others that have a category of the image.
    """

    def __init__(
        self,
        images: int,
        *,
        classes: int,
        found: int,
        true: float,
        kinds: int,
        near: float,
        right: float,
        present: float,
    ) -> None:
        rng = np.random.default_rng(0)
        shapes = make_shapes(rng)
        self.records, rows = [], []
        self.categories = [
            SimpleNamespace(
                category_id=k + 1, name=str(k + 1), kind="object", group=None, frequency="rcf"[k % 3]
            )
            for k in range(classes)
        ]
        first = 1
        for image_id in range(1, images + 1):
            count = int(rng.poisson(true))
            own_classes = rng.choice(classes, kinds, replace=False) + 1
            shape, category = rng.integers(SHAPES, size=count), rng.choice(own_classes, count)
            own = [shapes[i][0] for i in shape]
            self.records.append(
                SimpleNamespace(
                    image_id=image_id,
                    height=HEIGHT,
                    width=WIDTH,
                    ann_ids=np.arange(first, first + count),
                    category_ids=category.astype(np.int32),
                    boxes_xywh=np.array([item["bbox"] for item in own]).reshape(-1, 4),
                    areas=np.array([item["area"] for item in own], float),
                    rles=[item["counts"] for item in own],
                    is_crowd=np.zeros(count, bool),
                    is_ignore=np.zeros(count, bool),
                    neg_category_ids=sorted(set((rng.choice(classes, 4) + 1).tolist()) - set(own_classes)),
                    not_exhaustive_category_ids=[int(own_classes[0])] if image_id % 4 == 0 else [],
                )
            )
            first += count
            for _ in range(found):
                close = count and rng.random() < near
                if close:  # a true one, more or less shifted
                    index = int(rng.integers(count))
                    item = shapes[shape[index]][rng.integers(4)]
                    label = category[index] if rng.random() < right else rng.integers(classes) + 1
                else:
                    item = shapes[rng.integers(SHAPES)][0]
                    label = rng.choice(own_classes) if rng.random() < present else rng.integers(classes) + 1
                score = rng.beta(3, 2) if close else rng.beta(1, 6)
                rows.append((image_id, int(label), float(score), item["bbox"], item["counts"]))
        self.predictions: Predictions = make(*zip(*rows, strict=True))

    def truth(self) -> dict[str, Any]:
        """The truth as a COCO or LVIS dictionary."""
        annotations = [
            {
                "id": int(ann_id),
                "image_id": record.image_id,
                "category_id": int(category),
                "bbox": box.tolist(),
                "area": float(area),
                "iscrowd": 0,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle},
            }
            for record in self.records
            for ann_id, category, box, area, rle in zip(
                record.ann_ids,
                record.category_ids,
                record.boxes_xywh,
                record.areas,
                record.rles,
                strict=True,
            )
        ]
        images = [
            {
                "id": record.image_id,
                "height": HEIGHT,
                "width": WIDTH,
                "neg_category_ids": record.neg_category_ids,
                "not_exhaustive_category_ids": record.not_exhaustive_category_ids,
            }
            for record in self.records
        ]
        categories = [
            {"id": item.category_id, "name": item.name, "frequency": item.frequency}
            for item in self.categories
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def results(self) -> list[dict[str, Any]]:
        """The predictions as COCO results of masks."""
        table = self.predictions
        return [
            {
                "image_id": image,
                "category_id": category,
                "score": score,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle},
            }
            for image, category, score, rle in zip(
                table.image_ids.tolist(),
                table.category_ids.tolist(),
                table.scores.tolist(),
                table.rles,
                strict=True,
            )
        ]


def make_shapes(rng: np.random.Generator) -> list[list[dict[str, Any]]]:
    """Blobs, each with three more that are shifted a little further."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found: list[list[dict[str, Any]]] = []
    while len(found) < SHAPES:
        radius = float(np.clip(np.exp(rng.normal(np.log(19), 1.0)), 3, 250))
        cy, cx = rng.random(2) * (HEIGHT, WIDTH)
        angle, phase = np.arctan2(y - cy, x - cx), rng.random() * 6
        edge = radius * (1 + 0.25 * np.sin(3 * angle + phase) + 0.1 * np.sin(7 * angle))
        mask = (y - cy) ** 2 + (x - cx) ** 2 < edge**2
        if not mask.any():
            continue
        copies = []
        for step in range(4):
            shift = tuple(np.rint(rng.normal(0, 0.06 * radius * step + 1e-9, 2)).astype(int))
            coded = coco_mask.encode(np.asfortranarray(np.roll(mask, shift, (0, 1)).astype(np.uint8)))
            box, area = coco_mask.toBbox(coded).tolist(), int(coco_mask.area(coded))
            copies.append({"counts": coded["counts"], "bbox": box, "area": area})
        found.append(copies)
    return found


def coco_original(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """COCOeval's twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def lvis_original(clone: Path) -> Callable[[dict[str, Any], list[dict[str, Any]]], list[float]]:
    """LVISEval's thirteen numbers."""
    unneeded = ("cv2", "matplotlib", "matplotlib.pyplot", "matplotlib.patches")
    sys.path.insert(0, str(clone))
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in unneeded}):
        import lvis
    logging.getLogger("lvis.results").setLevel(logging.ERROR)

    def evaluate(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
        gt = lvis.LVIS.__new__(lvis.LVIS)
        gt.logger, gt.dataset = mock.MagicMock(), truth
        gt._create_index()
        with mock.patch.object(lvis.results, "deepcopy", lambda content: dict(content)):
            evaluation = lvis.LVISEval(gt, lvis.LVISResults(gt, results), "segm")
        evaluation.run()
        return [float(value) for value in evaluation.results.values()]

    return evaluate


def compare(title: str, load: Load, original: Callable[..., list[float]], state: type, runs: int) -> None:
    """Time both sides in turns and print their ratios."""
    truth, results = load.truth(), load.results()
    times: list[list[float]] = [[], []]
    ours: list[float] = []

    def own() -> list[float]:
        found = run(state(load.categories), load.records, load.predictions).result()
        return [-1.0 if value is None else value for value in found.stats.values()]

    for _ in range(runs):
        mine = copy.deepcopy((truth, results))  # the originals change what they are given
        start = time.process_time()
        theirs = original(*mine)
        times[0].append(time.process_time() - start)
        del mine
        start = time.process_time()
        ours = own()
        times[1].append(time.process_time() - start)
        assert np.abs(np.array(theirs) - ours).max() < 1e-12, (theirs, ours)
    a, b = (min(item) for item in times)
    mine = copy.deepcopy((truth, results))
    peaks = []
    for work in (lambda: original(*mine), own):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    m, n = peaks
    print(
        f"{title:34}{a:10.2f}{b:9.2f}{a / b:8.1f} x{m:12.0f}{n:9.0f}{m / n:7.1f} x   AP {ours[0]:.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--lvis-api", type=Path, default=os.environ.get("LVIS_API"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"{'':34}{'original':>10}{'partseg':>9}   s{'':9}{'original':>9}{'partseg':>9}   MiB")
    load = Load(options.images, classes=80, found=100, true=7.3, kinds=3, near=0.3, right=0.8, present=0.3)
    compare(f"COCO segm, {options.images} images x 100", load, coco_original, CocoAP, options.runs)
    if options.lvis_api is None:
        print("LVIS: left out, no clone of lvis-dataset/lvis-api is named (--lvis-api)")
        return
    load = Load(
        options.images, classes=1203, found=300, true=11.2, kinds=5, near=0.25, right=0.4, present=0.1
    )
    original = lvis_original(Path(options.lvis_api))
    compare(f"LVIS segm, {options.images} images x 300", load, original, LvisAP, min(options.runs, 2))


if __name__ == "__main__":
    main()
