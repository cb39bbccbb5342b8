"""Importing, opening and reading LVIS: the common layout beside pycocotools, on the same made-up file.

    python -m tests.bench.lvis_import --scale 1

At scale 1 the file is a little larger than lvis_v1_train.json (1.27 million annotations of 65 vertices,
1.27 GB) and its annotations are in no order. Every measurement is a fresh process; memory is the PSS of the
process and all its children, sampled ten times a second, which leaves the page cache out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson

IMAGES, ANNOTATIONS, CLASSES, VERTICES = 100_000, 1_271_756, 1203, 65
SEED = 0
_CHUNK = 4096
_HARMONICS = np.arange(1, 6)

COCO = """
from pycocotools.coco import COCO
start = time.perf_counter()
coco = COCO({json!r})
print("seconds", time.perf_counter() - start); print("cpu", cpu())
"""
IMPORT = """
from pathlib import Path
from partseg.datasets.convert import convert
if __name__ == "__main__":
    start = time.perf_counter()
    options = {{"annotations": {{"train": {name!r}}}, "images": "none"}}
    convert("lvis_v1", Path({root!r}), Path({out!r}), options=options, workers={workers})
    print("seconds", time.perf_counter() - start); print("cpu", cpu())
"""
CACHE = """
from partseg.layout import Dataset
start = time.perf_counter()
split = Dataset.open({out!r}, cache={cache!r}).split("train"); split[0]
print("seconds", time.perf_counter() - start)
"""
OPEN = """
from partseg.layout import Dataset
before = memory("Rss:")
start = time.perf_counter()
split = Dataset.open({out!r}, cache={cache!r}).split("train"); split[0]
print("seconds", time.perf_counter() - start)
print("added", memory("Rss:") - before)
taken = access(split)
print("p50", taken[len(taken) // 2]); print("p99", taken[len(taken) * 99 // 100])
"""
WORKER = """
import multiprocessing
from partseg.layout import Dataset
def work(split):
    taken = access(split)
    return memory("Private_Dirty:"), memory("Pss:")
if __name__ == "__main__":
    split = Dataset.open({out!r}, cache={cache!r}).split("train"); split[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        private, shared = pool.apply(work, (split,))
    print("private", private); print("pss", shared)
"""
COMMON = """
import random, resource, sys, time
def memory(field):
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
def access(split):
    chosen, taken = random.Random(0), []
    for _ in range(20000):
        index = chosen.randrange(len(split))
        start = time.perf_counter(); record = split[index]
        boxes, classes, masks = record.boxes_xywh, record.category_ids, record.rles
        taken.append(1e6 * (time.perf_counter() - start))
    return sorted(taken)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=0.1, help="1 is as large as LVIS")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--skip-coco", action="store_true", help="measure partseg alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        write_lvis_like(root / "lvis.json", options.scale)
        paths: dict[str, Any] = {
            "json": str(root / "lvis.json"),
            "name": "lvis.json",
            "root": folder,
            "out": str(root / "layout"),
            "cache": str(root / "cache"),
            "workers": options.workers,
        }
        size = (root / "lvis.json").stat().st_size / 1e6
        print(f"{size:.0f} MB of JSON, {round(ANNOTATIONS * options.scale)} annotations")
        coco = {} if options.skip_coco else run(root, COCO.format(**paths))
        ours = run(root, IMPORT.format(**paths))
        built = run(root, CACHE.format(**paths))
        opened = run(root, OPEN.format(**paths))
        worker = run(root, WORKER.format(**paths))
        disk = sum(path.stat().st_size for path in (root / "layout").rglob("*.parquet")) / 1e6
    for name, done, what in (
        ("pycocotools load", coco, ""),
        ("partseg import", ours, f"; {disk:.0f} MB on disk"),
    ):
        if done:
            used = f"{done['seconds']:8.2f} s   cpu {done['cpu']:8.2f} s   peak PSS {done['peak']:7.0f} MiB"
            print(f"{name:16} {used}{what}")
    if coco:
        ratios = [coco[name] / ours[name] for name in ("seconds", "cpu", "peak")]
        print("ratio            {:8.2f} x       {:8.2f} x            {:7.1f} x".format(*ratios))
    print(
        f"first open {1000 * built['seconds']:8.1f} ms (builds the cache), peak PSS {built['peak']:.0f} MiB"
    )
    print(f"open       {1000 * opened['seconds']:8.1f} ms, {opened['added']:.1f} MiB more RSS")
    print(f"one image  {opened['p50']:8.1f} us p50, {opened['p99']:.1f} us p99")
    own, mapped = worker["private"], worker["pss"]
    print(f"worker     {own:8.1f} MiB of its own, {mapped:.1f} MiB with mapped pages (spawned)")


def run(folder: Path, script: str) -> dict[str, float]:
    """What a script prints, a name and a number per line, and its peak memory in MiB."""
    path = folder / "script.py"  # a file, because spawned processes import it
    path.write_text(COMMON + script)
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as process:
        peak = _Peak(process.pid)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        peak.stop()
    assert process.returncode == 0, script
    pairs = (line.split() for line in lines)
    found = {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2 and _is_number(pair[1])}
    return {**found, "peak": peak.most}


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("e-", "", 1).isdigit()


class _Peak:
    """The most memory that a process and all below it have had at once, MiB."""

    def __init__(self, pid: int) -> None:
        self.most = 0.0
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, sum(_pss(pid) for pid in _tree(self._pid)))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def write_lvis_like(path: Path, scale: float) -> None:
    """A file like lvis_v1_train.json; the same for the same scale.

    Outlines are wavy circles of 65 vertices with two decimals, cut at the borders of the image. Classes
    follow Zipf's law. Every annotation belongs to an image drawn at random.
    """
    random = np.random.default_rng(SEED)
    images = max(1, round(IMAGES * scale))
    sides = np.array([(480, 640), (427, 640), (375, 500), (640, 427), (640, 480)])
    sizes = sides[random.integers(0, len(sides), images)]
    with path.open("wb") as stream:
        stream.write(b'{"info":{"description":"made up, shaped like LVIS v1"},"annotations":')
        _write_list(stream, _annotations(random, sizes, round(ANNOTATIONS * scale)))
        stream.write(b',"images":')
        _write_list(stream, _images(random, sizes))
        stream.write(b',"licenses":[{"id":4,"name":"none","url":"none"}],"categories":')
        _write_list(stream, (_category(number) for number in range(1, CLASSES + 1)))
        stream.write(b"}")


def _write_list(stream: Any, rows: Any) -> None:
    before = b"["
    for row in rows:
        stream.write(before + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
        before = b","
    stream.write(b"[]" if before == b"[" else b"]")


def _image_id(index: int) -> int:
    return 3 * index + 9


def _annotations(random: np.random.Generator, sizes: Any, count: int) -> Any:
    weights = 1 / np.arange(1, CLASSES + 1)
    for first in range(0, count, _CHUNK):
        number = min(_CHUNK, count - first)
        images = random.integers(0, len(sizes), number)
        classes = random.choice(CLASSES, number, p=weights / weights.sum()) + 1
        x, y = _outlines(random, sizes[images])
        outlines = np.stack([x, y], axis=2).reshape(number, 1, -1)
        left, top = x.min(axis=1), y.min(axis=1)
        boxes = np.round(np.stack([left, top, x.max(axis=1) - left, y.max(axis=1) - top], axis=1), 2)
        areas = np.round(np.abs((x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1]).sum(axis=1)) / 2, 2)
        for row in range(number):
            yield {
                "area": float(areas[row]),
                "id": first + row + 1,
                "segmentation": outlines[row],
                "image_id": _image_id(int(images[row])),
                "bbox": boxes[row],
                "category_id": int(classes[row]),
            }


def _outlines(random: np.random.Generator, sizes: Any) -> tuple[Any, Any]:
    """Coordinates [N, 65]; radii are chosen for run-lengths as long as LVIS' (median 106, mean 243 bytes)."""
    count = len(sizes)
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    radius = np.minimum(np.exp(random.normal(3.3, 1.1, (count, 1))), 240)
    stretch = np.exp(random.normal(0, 0.3, (count, 1)))
    angle = np.linspace(0, 2 * np.pi, VERTICES)
    phases = _HARMONICS[:, None] * angle + 2 * np.pi * random.random((count, 5, 1))
    waves = (random.normal(0, 0.15, (count, 5)) / _HARMONICS)[:, :, None] * np.sin(phases)
    reach = radius * (1 + waves.sum(axis=1))
    x = random.random((count, 1)) * width + reach * stretch * np.cos(angle)
    y = random.random((count, 1)) * height + reach / stretch * np.sin(angle)
    return np.round(np.clip(x, 0, width), 2), np.round(np.clip(y, 0, height), 2)


def _images(random: np.random.Generator, sizes: Any) -> Any:
    for index, (height, width) in enumerate(sizes.tolist()):
        image_id = _image_id(index)
        yield {
            "date_captured": "2013-11-18 09:24:53",
            "neg_category_ids": random.integers(1, CLASSES + 1, 5).tolist(),
            "license": 4,
            "height": height,
            "width": width,
            "flickr_url": f"http://farm8.staticflickr.com/7372/{image_id:010d}_z.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{image_id:012d}.jpg",
            "id": image_id,
            "not_exhaustive_category_ids": random.integers(1, CLASSES + 1, 1).tolist(),
        }


def _category(number: int) -> dict[str, Any]:
    return {
        "image_count": 1,
        "synonyms": [f"name{number}", f"other{number}"],
        "def": "made up",
        "id": number,
        "synset": f"name{number}.n.01",
        "name": f"name{number}",
        "frequency": "rcf"[number % 3],
        "instance_count": 1,
    }


if __name__ == "__main__":
    main()
