"""Opening a large dataset: the common layout beside pycocotools, same annotations, fresh processes.

    python -m tests.bench.open_dataset --annotations 300000

Writes the annotations once as a COCO JSON file and once in the layout, then opens each in a new process,
turn by turn, and reads one image's annotations. Prints medians and the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from partseg.layout import AnnotationRow, Category, DatasetWriter, ImageRow, Record, mask_to_rle

PER_IMAGE = 12
OPEN_COCO = """
import time; start = time.perf_counter()
from pycocotools.coco import COCO
imported = time.perf_counter()
coco = COCO({path!r}); found = len(coco.loadAnns(coco.getAnnIds(imgIds=[7])))
"""
OPEN_LAYOUT = """
import time; start = time.perf_counter()
from partseg.layout import Dataset
imported = time.perf_counter()
split = Dataset.open({path!r}, cache={cache!r}).split("train"); found = len(split[6].ann_ids)
"""
MEASURED = """
import re, sys
seconds = time.perf_counter() - imported
own = int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(found, seconds, own, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--annotations", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = options.annotations // PER_IMAGE
        write(root, images)
        scripts = {
            "pycocotools": OPEN_COCO.format(path=str(root / "coco.json")),
            "partseg": OPEN_LAYOUT.format(path=str(root / "layout"), cache=str(root / "cache")),
        }
        run(scripts["partseg"])  # builds the cache, as the first use of a dataset does
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in scripts}
        for _ in range(options.runs):
            for name, script in scripts.items():
                rows[name].append(run(script))
    print(f"{images} images, {images * PER_IMAGE} annotations, median of {options.runs} fresh processes")
    seconds, memory = ({n: statistics.median(r[i] for r in rows[n]) for n in rows} for i in (0, 1))
    for name in scripts:
        print(f"{name:12} open {1000 * seconds[name]:10.1f} ms   private memory {memory[name]:8.0f} MiB")
    print(
        f"ratio        open {seconds['pycocotools'] / seconds['partseg']:10.0f} x    "
        f"private memory {memory['pycocotools'] / memory['partseg']:8.1f} x"
    )


def write(root: Path, images: int) -> None:
    """The same random annotations as COCO JSON and in the layout."""
    random = np.random.default_rng(0)
    mask = np.zeros((96, 128), dtype=bool)
    mask[20:60, 30:90] = random.random((40, 60)) < 0.9
    rle = mask_to_rle(mask)
    category = Category(category_id=1, name="thing", kind="object")
    annotations = []
    with DatasetWriter(
        root / "layout",
        name="bench",
        categories=[category],
        converter={"name": "bench"},
        image_source="bench",
    ) as writer:
        for image in range(1, images + 1):
            rows = []
            for x, y, w, h in random.integers(1, 60, (PER_IMAGE, 4)).tolist():
                box = (float(x), float(y), float(w), float(h))
                rows.append(AnnotationRow(category_id=1, bbox_xywh=box, area=float(w * h), rle=rle))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": 1,
                        "bbox": box,
                        "area": float(w * h),
                        "iscrowd": 0,
                        "segmentation": {"size": [96, 128], "counts": rle.decode()},
                    }
                )
            name = f"{image:08d}.jpg"
            writer.write(
                "train",
                Record(
                    image=ImageRow(file_name=name, height=96, width=128, source_key=name),
                    annotations=tuple(rows),
                ),
            )
    listed = [
        {"id": i, "file_name": f"{i:08d}.jpg", "height": 96, "width": 128} for i in range(1, images + 1)
    ]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "coco.json").write_text(json.dumps(content))


def run(script: str) -> tuple[float, float]:
    """Seconds and private MiB of one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", script + MEASURED], capture_output=True, text=True, check=True
    )
    found, seconds, memory = done.stderr.split()
    assert int(found) == PER_IMAGE
    return float(seconds), float(memory)


if __name__ == "__main__":
    main()
