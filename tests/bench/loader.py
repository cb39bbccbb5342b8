"""Training images: the loader beside detectron2's mapper, same photos, annotations and transforms.

    python -m tests.bench.loader --detectron2 PYTHON_THAT_HAS_IT

Makes up photos of 640 x 480 with blobs, writes them in the layout and as COCO JSON, and reads both in fresh
processes, turn by turn: short side 800, flipped half of the time, batches of two. detectron2 takes its own
``build_detection_train_loader`` and ``DatasetMapper`` (bitmasks), but drops empty boxes only, as VLPart
does. First, pixels, boxes and masks of every photo are compared, plain and flipped. Processor time is that of
all processes together, which other work on the machine hardly changes. Memory is what a process has changed
in mappings of its own: neither what it shares with the one it was forked from, nor files, nor the queue; for
all processes together, what they share is counted once.
detectron2 is measured as it comes, with its annotations serialised, and with the dictionaries as they are.

This file also runs where partseg is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, SIDE, LONGEST, BATCH = 480, 640, 800, 1333, 2
PHOTOS = 48
SIDES = ("detectron2", "partseg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--detectron2", help="a Python with detectron2; without, only partseg is measured")
    parser.add_argument("--masks", type=int, default=20, help="per photo")
    parser.add_argument("--images", type=int, default=200, help="read per measurement")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=20_000, help="photos of the dataset for the memory")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](json.load(sys.stdin))))
        return
    pythons = {"partseg": sys.executable}
    if options.detectron2:
        pythons["detectron2"] = options.detectron2
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("outlines", "run-lengths"):
            root = Path(folder) / kind
            write(root, PHOTOS, options.masks, outlines=kind == "outlines")
            print(f"{options.masks} {kind} per photo of {WIDTH} x {HEIGHT}")
            if options.detectron2:
                compare(pythons, root)
            for workers in (0, 2):
                speed(pythons, root, workers, options.images, options.runs)
        root = Path(folder) / "large"
        write(root, options.records, 12, outlines=True)
        print(f"{options.records} photos, {12 * options.records} outlines: memory with 2 workers")
        memory(pythons, root, options.images)


def compare(pythons: dict[str, str], root: Path) -> None:
    """Stops if any pixel, box or mask differs."""
    for flip in (0.0, 1.0):
        job = {"root": str(root), "work": "digests", "flip": flip}
        found = {side: child(pythons[side], side, job) for side in SIDES}
        assert found["partseg"] == found["detectron2"], f"they differ (flip {flip})"
    print(f"  equal pixels, boxes and masks in {PHOTOS} photos, plain and flipped")


def speed(pythons: dict[str, str], root: Path, workers: int, images: int, runs: int) -> None:
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        for side, python in pythons.items():
            for dense in (True, False) if side == "partseg" else (True,):
                job = {
                    "root": str(root),
                    "work": "speed",
                    "workers": workers,
                    "images": images,
                    "dense": dense,
                }
                name = side if dense else "partseg, masks left as runs"
                rows.setdefault(name, []).append(child(python, side, job))
    clock, processor = ({n: statistics.median(r[i] for r in rows[n]) for n in rows} for i in (0, 1))
    for name, seconds in clock.items():
        spread = f"({1 / max(rows[name])[0]:.1f} to {1 / min(rows[name])[0]:.1f})"
        line = f"  {workers} workers  {name:28} {1 / seconds:7.1f} images/s {spread:18}"
        if "detectron2" in clock:
            line += f"{clock['detectron2'] / seconds:5.1f} x"
        line += f"   processor {1000 * processor[name]:7.1f} ms per image"
        if "detectron2" in clock:
            line += f"{processor['detectron2'] / processor[name]:5.1f} x"
        print(line, flush=True)


def memory(pythons: dict[str, str], root: Path, images: int) -> None:
    found = {}
    child(pythons["partseg"], "partseg", {"root": str(root), "work": "digests"})  # builds the cache
    for side, python in pythons.items():
        for serialise in (True, False) if side == "detectron2" else (True,):
            job = {
                "root": str(root),
                "work": "memory",
                "workers": 2,
                "images": images,
                "serialise": serialise,
            }
            name = side if serialise else f"{side}, dictionaries"
            found[name] = child(python, side, job)
    for name, entry in found.items():
        worker, all_ = (entry[key] / 2**20 for key in ("worker", "all"))
        times = [entry[key] / found["partseg"][key] for key in ("worker", "all")]
        print(
            f"  {name:26} per worker {worker:8.1f} MiB {times[0]:6.1f} x   "
            f"all processes {all_:8.1f} MiB {times[1]:6.1f} x",
            flush=True,
        )


def child(python: str, side: str, job: dict[str, Any]) -> Any:
    command = (
        [python, "-m", "tests.bench.loader", "--child", side]
        if side == "partseg"
        else [python, str(Path(__file__).resolve()), "--child", side]
    )
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(job: dict[str, Any], loader: Any, unfold: Any) -> Any:
    """Take batches; seconds and processor seconds per image, or bytes of private memory."""
    count = job["images"] // BATCH
    start, first = (
        (0.0, 0.0),
        2 + 4 * job["workers"],
    )  # until the workers have started and filled their queues
    for number, batch in enumerate(loader):
        unfold(batch)
        if number == first:
            start = time.perf_counter(), processor_time()
        if number == first + count:
            if job["work"] == "speed":
                stop = time.perf_counter(), processor_time()
                return [(after - before) / (BATCH * count) for after, before in zip(stop, start, strict=True)]
            workers = [private(process.pid) for process in multiprocessing.active_children()]
            assert len(workers) == job["workers"]
            return {"worker": statistics.mean(workers), "all": anonymous()}
    raise AssertionError("too few batches")


def processor_time() -> float:
    """Seconds of this process and of its workers."""
    ticks = 0
    for process in multiprocessing.active_children():
        words = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(words[11]) + int(words[12])  # utime and stime, proc_pid_stat(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def private(pid: int | str | None) -> int:
    """Bytes that this process has changed in mappings of its own."""
    total, own = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as lines:  # noqa: PTH123
        for line in lines:
            words = line.split()
            if not words[0].endswith(":"):
                own = words[1][3] == "p"
            elif own and words[0] == "Private_Dirty:":
                total += 1024 * int(words[1])
    return total


def anonymous() -> int:
    """Bytes of this process and all it started that lie in no file, shared ones counted once."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = entry.read_text(encoding="utf-8").rpartition(")")[2].split()
            parents[int(entry.parent.name)] = int(words[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return total


def digest(image: Any, boxes: Any, masks: Any) -> list[str]:
    arrays = (image.numpy(), boxes.numpy().astype(np.float32), masks.numpy().astype(np.uint8))
    return [hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest() for one in arrays]


def partseg_child(job: dict[str, Any]) -> Any:
    from functools import partial

    import torch
    from torch.utils.data import DataLoader

    from partseg.layout import Dataset
    from partseg.training.config import AugmentConfig, source
    from partseg.training.data import WORKER_START, TrainingImages, collate, pool
    from partseg.training.sampler import SampleKey, Steps

    torch.set_num_threads(1)
    root = Path(job["root"])
    dataset = Dataset.open(root / "layout", image_root=root, cache=root / "cache")
    augment = AugmentConfig(
        short_sides=(SIDE,), sampling="choice", long_side=LONGEST, flip=job.get("flip", 0.5)
    )
    sources = [source(dataset, "train", batch_size=BATCH)]
    images = TrainingImages(sources, augment)
    if job["work"] == "digests":
        samples = [images[SampleKey(source=0, row=row, seed=0)] for row in range(PHOTOS)]
        return [digest(one.image, one.target.boxes, one.target.masks) for one in samples]
    steps = Steps([pool(source) for source in sources], order="epochs", seed=0, start=0, stop=10**6)
    workers = job["workers"]
    loader: Any = DataLoader(
        images,  # type: ignore[arg-type]
        batch_sampler=steps,
        collate_fn=partial(collate, sources=sources),
        num_workers=workers,
        multiprocessing_context=WORKER_START if workers else None,
    )
    cpu = torch.device("cpu")
    return run(job, loader, lambda batch: batch.to(cpu) if job.get("dense", True) else None)


def detectron2_child(job: dict[str, Any]) -> Any:
    import functools
    import io

    import torch
    from detectron2.data import DatasetMapper, build_detection_train_loader, detection_utils
    from detectron2.data import transforms as T
    from detectron2.data.common import DatasetFromList
    from detectron2.data.datasets import load_coco_json
    from detectron2.data.samplers import TrainingSampler

    torch.set_num_threads(1)
    root = Path(job["root"])
    detection_utils.filter_empty_instances = functools.partial(
        detection_utils.filter_empty_instances, by_mask=False
    )
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.ResizeShortestEdge([SIDE], LONGEST, "choice"),
            T.RandomFlip(prob=job.get("flip", 0.5)),
        ],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        dicts = load_coco_json(str(root / "coco.json"), str(root))
    if job["work"] == "digests":
        found = []
        for item in map(mapper, dicts):
            instances = item["instances"]
            found.append(digest(item["image"], instances.gt_boxes.tensor, instances.gt_masks.tensor))
        return found
    sampler = TrainingSampler(len(dicts), seed=0)
    dataset = dicts if job.get("serialise", True) else DatasetFromList(dicts, serialize=False)
    loader = build_detection_train_loader(
        dataset, mapper=mapper, sampler=sampler, total_batch_size=BATCH, num_workers=job["workers"]
    )
    del dicts, dataset
    return run(job, loader, lambda batch: None)


CHILDREN = {"partseg": partseg_child, "detectron2": detectron2_child}


def write(root: Path, records: int, masks: int, *, outlines: bool) -> None:
    """Photos, and their annotations in the layout and as COCO JSON; records share the photos in turn."""
    from PIL import Image
    from pycocotools import mask as coco_mask

    from partseg.layout import AnnotationRow, Category, DatasetWriter, ImageRow, Record

    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    for number in range(min(PHOTOS, records)):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
        photo = (smooth + random.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(root / f"{number}.jpg", quality=90)
    annotations = []
    with DatasetWriter(
        root / "layout",
        name="bench",
        categories=[Category(category_id=1, name="thing", kind="object")],
        converter={"name": "bench"},
        image_source="bench",
    ) as writer:
        for image in range(records):
            rows = []
            for _ in range(masks):
                ring = blob(random)
                rle = coco_mask.frPyObjects([ring.tolist()], HEIGHT, WIDTH)[0]
                x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
                area = float(coco_mask.area(rle))
                rows.append(
                    AnnotationRow(
                        category_id=1,
                        bbox_xywh=(x, y, w, h),
                        area=area,
                        rle=rle["counts"],
                        polygons=(ring,) if outlines else None,
                    )
                )
                coded = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image + 1,
                        "category_id": 1,
                        "bbox": [x, y, w, h],
                        "area": area,
                        "iscrowd": 0,
                        "segmentation": [ring.tolist()] if outlines else coded,
                    }
                )
            name = f"{image % PHOTOS}.jpg"
            row = ImageRow(file_name=name, height=HEIGHT, width=WIDTH, source_key=str(image))
            writer.write("train", Record(image=row, annotations=tuple(rows)))
    listed = [
        {"id": i + 1, "file_name": f"{i % PHOTOS}.jpg", "height": HEIGHT, "width": WIDTH}
        for i in range(records)
    ]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "coco.json").write_text(json.dumps(content))


def blob(random: np.random.Generator) -> np.ndarray:
    """A closed outline of 40 points inside the photo, rounded to hundredths as in LVIS: [80]."""
    radius = random.uniform(15, 110) * (1 + 0.05 * random.standard_normal(40).cumsum()).clip(0.3)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = (random.uniform(60, WIDTH - 60) + radius * np.cos(angle)).clip(0, WIDTH)
    y = (random.uniform(60, HEIGHT - 60) + radius * np.sin(angle)).clip(0, HEIGHT)
    return np.stack([x, y], axis=1).ravel().round(2)


if __name__ == "__main__":
    main()
