"""Panoptic conversions beside the originals: panopticapi's converters and TAPPS' preparation scripts.

    python -m tests.bench.panoptic --panopticapi DIR --tapps DIR

The originals are read from clones that the arguments (or ``$PANOPTICAPI``, ``$TAPPS``) name; without one, its
part is left out. Both sides read the same made-up files, one after the other, and their results are compared
pixel by pixel. Times are processor seconds per image (of the original's processes together, starting them not
counted), so that neither the number of cores nor other work on the machine counts.

"raw" is raw files to the layout: every mask as run-lengths, boxes, areas, the map. "out" is layout to the
original's files. An original has no such halfway house, so "both" is like for like the first time, "out"
every time after.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from partseg.datasets.convert import convert
from partseg.layout import Dataset
from partseg.layout.export.panopticapi import to_detection
from partseg.layout.export.tapps import write_tapps
from partseg.synthetic.worlds import make_up
from tests.bench.run_lengths import wavy

# What TAPPS' scripts import and do not need here, one call of detectron2, and a Python below 3.10, for which
# panoptic_parts takes "3.11" when it reads the first three characters of the version as a number.
SHIM = """
import os, platform, sys
from unittest.mock import MagicMock
platform.python_version = lambda: "3.9.0"
for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.patches", "matplotlib.legend_handler",
             "sklearn", "sklearn.metrics", "detectron2", "detectron2.utils", "detectron2.utils.file_io"):
    sys.modules[name] = MagicMock()
sys.modules["detectron2.utils.file_io"].PathManager.ls = os.listdir
sys.modules["torch"] = None
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--panopticapi", type=Path, default=os.environ.get("PANOPTICAPI"))
    parser.add_argument("--tapps", type=Path, default=os.environ.get("TAPPS"))
    parser.add_argument("--coco", type=Path, help="a real COCO folder; its panoptic_val2017 is used too")
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    print(f"{'':34}{'original':>10}{'raw':>8}{'out':>8}{'both':>8}   ms per image; ratios of both, of out")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.panopticapi is None:
            print("COCO panoptic: left out, no clone of cocodataset/panopticapi is named (--panopticapi)")
        else:
            write_wavy_coco(work / "wavy", options.images)
            bench_coco(options.panopticapi, work / "wavy", "640 x 480, 12 wavy segments", work)
            if options.coco:
                repeat_coco(options.coco, work / "real", options.images)
                bench_coco(options.panopticapi, work / "real", "real files", work)
        if options.tapps is None:
            print("TAPPS: left out, no clone of tue-mps/tapps is named (--tapps)")
        else:
            bench_tapps(options.tapps, "pascal_pp", {"parts": 57}, 500, options.images, work)
            bench_tapps(options.tapps, "pascal_pp", {"parts": 107}, 500, options.images, work)
            bench_tapps(options.tapps, "cityscapes_pp", {}, 2048, max(options.images // 4, 1), work)


def bench_coco(clone: Path, root: Path, title: str, work: Path) -> None:
    """``panoptic2detection_coco_format.py``, the function that its processes run."""
    sys.path.insert(0, str(clone))
    converter = load(clone / "converters/panoptic2detection_coco_format.py")
    path = root / "annotations/panoptic_val2017.json"

    def original() -> dict[str, Any]:
        content: dict[str, Any] = json.loads(path.read_text())
        categories = {item["id"]: item for item in content["categories"]}
        with contextlib.redirect_stdout(io.StringIO()):
            content["annotations"] = converter.convert_panoptic_to_detection_coco_format_single_core(
                0, content["annotations"], categories, path.with_suffix(""), False
            )
        for number, item in enumerate(content["annotations"]):
            item["id"] = number
        (work / "original.json").write_text(json.dumps(content))
        return content

    settings = {"annotations": {"val2017": "annotations/panoptic_val2017.json"}, "images": "none"}
    expected, theirs = timed(original)
    dataset, raw = timed_conversion("coco_panoptic", root, settings, work)

    def ours() -> dict[str, Any]:
        content = to_detection(dataset, "val2017")
        (work / "ours.json").write_bytes(orjson.dumps(content))
        return content

    found, out = timed(ours)
    assert found["annotations"] == expected["annotations"]
    show(f"COCO, {title}", len(dataset.split("val2017")), theirs, raw, out)


def bench_tapps(
    clone: Path, source: str, options: dict[str, Any], width: int, images: int, work: Path
) -> None:
    """One of ``datasets/prepare_*.py``, as a process of its own."""
    script = {57: "prepare_pascal_pp", 107: "prepare_pascal_pp_107"}.get(
        options.get("parts", 0), "prepare_cityscapes_pp"
    )
    name = "cityscapes" if source == "cityscapes_pp" else "pascal"
    (work / "shim").mkdir(exist_ok=True)
    (work / "shim/sitecustomize.py").write_text(SHIM)
    root = work / f"{source}-{width}"
    if not root.is_dir():
        make_up(source, root, {"train": images, "val": 1, "size": width})

    def original(kept: bool) -> float:
        """Processor seconds of the script over all images, or over none."""
        place = work / "datasets"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(root, place / name)
        if not kept:
            for path in place.rglob("*.tif"):
                path.unlink()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "DETECTRON2_DATASETS": str(place), "PYTHONPATH": str(work / "shim")}
        command = [sys.executable, f"datasets/{script}.py"]
        subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    start = original(kept=False)
    theirs = original(kept=True) - start
    dataset, raw = timed_conversion(source, root, options, work)
    shutil.rmtree(work / "out", ignore_errors=True)
    _, out = timed(lambda: write_tapps(dataset, work / "out"), once=True)
    compared = 0
    for path in (work / "out").rglob("*.png"):
        expected = work / "datasets" / name / path.relative_to(work / "out")
        assert (np.asarray(Image.open(path)) == np.asarray(Image.open(expected))).all(), path
        compared += 1
    assert compared
    total = sum(len(dataset.split(split)) for split in dataset.splits)
    show(f"{script}, {width} wide", total, theirs, raw, out)


def write_wavy_coco(root: Path, images: int) -> None:
    """Maps as COCO's: 640 x 480, twelve segments with uneven borders, saved by pillow."""
    folder = root / "annotations/panoptic_val2017"
    folder.mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [
        {"id": 1, "name": "thing", "isthing": 1, "color": [9, 9, 9], "supercategory": "a"}
    ]
    labels = wavy(640, 12)[:480]
    for number in range(images):
        ids = np.random.default_rng(number).choice(2**24 - 1, 12, replace=False) + 1
        shifted = np.roll(labels, 37 * number, axis=1)
        pixels = ids[shifted].astype("<u4")
        rgb = pixels.view(np.uint8).reshape(*pixels.shape, 4)[..., :3]
        Image.fromarray(np.ascontiguousarray(rgb)).save(folder / f"{number}.png")
        segments = []
        for label in np.unique(shifted):
            y, x = np.nonzero(shifted == label)
            box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            segments.append(
                {"id": int(ids[label]), "category_id": 1, "area": len(x), "bbox": box, "iscrowd": 0}
            )
        image = {"id": number, "file_name": f"{number}.jpg", "height": 480, "width": 640}
        content["images"].append(image)
        row = {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        content["annotations"].append(row)
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(content))


def repeat_coco(source: Path, root: Path, images: int) -> None:
    """The first images of a real ``panoptic_val2017``, over and over, so that fixed costs do not count."""
    name = "annotations/panoptic_val2017"
    content = json.loads((source / f"{name}.json").read_text())
    annotations = content["annotations"][:images]
    by_id = {item["id"]: item for item in content["images"]}
    content["images"], content["annotations"] = [], []
    (root / "annotations").mkdir(parents=True)
    (root / name).symlink_to((source / name).absolute())
    for number in range(images):
        annotation = annotations[number % len(annotations)]
        content["images"].append({**by_id[annotation["image_id"]], "id": number + 1})
        content["annotations"].append({**annotation, "image_id": number + 1})
    (root / f"{name}.json").write_text(json.dumps(content))


def timed_conversion(source: str, root: Path, options: dict[str, Any], work: Path) -> tuple[Dataset, float]:
    def run() -> Dataset:
        out = work / f"layout-{source}"
        shutil.rmtree(out, ignore_errors=True)
        convert(source, root, out, options=options)
        return Dataset.open(out, image_root=root, cache=work / "cache")

    return timed(run)


def timed(work: Callable[[], Any], *, once: bool = False) -> tuple[Any, float]:
    """What ``work`` gives, and the processor seconds of the fastest of three runs."""
    best = float("inf")
    for _ in range(1 if once else 3):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return result, best


def show(title: str, images: int, theirs: float, raw: float, out: float) -> None:
    a, b, c = (1000 * value / images for value in (theirs, raw, out))
    print(f"{title:34}{a:10.2f}{b:8.2f}{c:8.2f}{b + c:8.2f}   {a / (b + c):6.1f} x {a / c:8.1f} x")


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
