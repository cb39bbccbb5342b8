"""Masks, areas and boxes of a label map: one pass over its runs beside pycocotools mask by mask.

python -m tests.bench.run_lengths --side 640 --segments 24
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from pycocotools import mask as coco_mask

from partseg.layout.runs import label_map_to_runs, runs_to_segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--segments", type=int, default=24)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    label_map = wavy(options.side, options.segments)
    ours, theirs = [], []
    for _ in range(options.runs):
        start = time.perf_counter()
        segments = runs_to_segments(label_map_to_runs(label_map))
        middle = time.perf_counter()
        expected = mask_by_mask(label_map)
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    assert segments.rles == [rle for rle, _, _ in expected]
    a, b = statistics.median(theirs), statistics.median(ours)
    print(
        f"{options.side} x {options.side}, {len(expected)} segments, median of {options.runs}, equal results"
    )
    print(f"pycocotools  {1000 * a:8.2f} ms\npartseg      {1000 * b:8.2f} ms\nratio        {a / b:8.1f} x")


def mask_by_mask(label_map: np.ndarray) -> list[tuple[bytes, int, list[float]]]:
    found = []
    for label in np.unique(label_map):
        rle = coco_mask.encode(np.asfortranarray(label_map == label, dtype=np.uint8))
        found.append((rle["counts"], int(coco_mask.area(rle)), coco_mask.toBbox(rle).tolist()))
    return found


def wavy(side: int, segments: int) -> np.ndarray:
    """Regions around random points, with wavy borders."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    x, y = x + 6 * np.sin(y / 9), y + 6 * np.sin(x / 11)
    points = random.uniform(0, side, (segments, 2))
    distance = (x[None] - points[:, :1, None]) ** 2 + (y[None] - points[:, 1:, None]) ** 2
    return distance.argmin(axis=0).astype(np.uint16)


if __name__ == "__main__":
    main()
