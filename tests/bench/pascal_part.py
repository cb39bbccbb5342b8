"""Conversion of Pascal-Part: VLPart's own script beside partseg, on one process and on two.

python -m tests.bench.pascal_part --original VLPART_CLONE --samples PASCAL_PART_FOLDER

The time per image is the slope between a small and a large folder, each converted in a fresh process, so that
what it takes to start does not count. Both read the same files: copies of the sample under new names, or
made-up annotations where there is no sample. Without a clone only partseg is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from partseg.datasets.formats.matlab import load_variable
from partseg.layout.stacks import masks_to_segments
from partseg.synthetic import write_pascal_part

VOC = "VOCdevkit/VOC2010"
OURS = """
import sys
from pathlib import Path
from partseg.datasets.convert import convert
root, out, workers = sys.argv[1:]
convert("pascal_part", Path(root), Path(out), options={"splits": ["train"]}, workers=int(workers))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--original", type=Path, default=os.environ.get("VLPART"), help="clone of VLPart")
    parser.add_argument("--samples", type=Path, default=os.environ.get("PASCAL_PART_SAMPLES"))
    parser.add_argument("--images", type=int, nargs=2, default=(256, 768), help="of the two folders")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.samples or made_up(folder / "made_up")
        roots = [copies(source, folder / f"raw{count}", count) for count in options.images]
        jobs: dict[str, Callable[[Path], None]] = {
            "partseg, 1 process": lambda root: ours(root, 0),
            "partseg, 2 processes": lambda root: ours(root, 2),
        }
        if options.original:
            script = Path(options.original) / "tools" / "pascal_part_mat2json.py"
            jobs = {"VLPart": lambda root: original(script, root), **jobs}
        times: dict[str, list[list[tuple[float, float]]]] = {job: [[], []] for job in jobs}
        for _ in range(options.runs):
            for job, run in jobs.items():
                for root, found in zip(roots, times[job], strict=True):
                    start, processor = time.perf_counter(), processor_time()
                    run(root)
                    found.append((time.perf_counter() - start, processor_time() - processor))
        few, many = options.images
        print(f"slope between {few} and {many} images, medians of {options.runs}; ms per image")
        slopes: dict[str, list[float]] = {}
        for job, (small, large) in times.items():
            medians = [
                [statistics.median(kind) for kind in zip(*runs, strict=True)] for runs in (small, large)
            ]
            slopes[job] = [1000 * (b - a) / (many - few) for a, b in zip(*medians, strict=True)]
            ratios = [
                f"{peer / own:5.1f} x" if "VLPart" in slopes else ""
                for peer, own in zip(slopes.get("VLPart", slopes[job]), slopes[job], strict=True)
            ]
            clock, processor = slopes[job]
            print(
                f"{job:22s} by the clock {clock:7.2f} {ratios[0]}   of processor {processor:7.2f} {ratios[1]}"
            )
        bounds(roots[0])


def processor_time() -> float:
    """Seconds that finished child processes have used: steadier than the clock on a shared machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def made_up(root: Path) -> Path:
    write_pascal_part(root, seed=0, train=18, val=0, size=480)
    return root


def copies(source: Path, root: Path, count: int) -> Path:
    """A raw folder of ``count`` images: those of ``source`` again and again, names changed inside as well."""
    for name in ("Annotations_Part", f"{VOC}/JPEGImages", f"{VOC}/ImageSets/Main"):
        (root / name).mkdir(parents=True)
    mats = sorted((source / "Annotations_Part").glob("*.mat"))
    names = [f"2008_{number:06d}" for number in range(1, count + 1)]
    for index, name in enumerate(names):
        mat = mats[index % len(mats)]
        (root / "Annotations_Part" / f"{name}.mat").write_bytes(renamed(mat.read_bytes(), mat.stem, name))
        shutil.copy(
            source / VOC / "JPEGImages" / f"{mat.stem}.jpg", root / VOC / "JPEGImages" / f"{name}.jpg"
        )
    (root / VOC / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def renamed(content: bytes, old: str, new: str) -> bytes:
    """The same annotation for an image of another name, compressed as MATLAB does it (to a few bytes)."""
    body = zlib.decompress(content[136:]).replace(old.encode(), new.encode(), 1)
    packer = zlib.compressobj(6)
    whole = (len(body) - 1) // 8192 * 8192
    pieces = [
        packer.compress(body[start : start + 8192]) + packer.flush(zlib.Z_FULL_FLUSH)
        for start in range(0, whole, 8192)
    ]
    packed = b"".join([*pieces, packer.compress(body[whole:]), packer.flush()])
    return content[:128] + struct.pack("<II", 15, len(packed)) + packed


def ours(root: Path, workers: int) -> None:
    out = root.with_name("out")
    arguments = [sys.executable, "-c", OURS, root, out, str(workers)]
    subprocess.run(arguments, check=True)
    shutil.rmtree(out)


def original(script: Path, root: Path) -> None:
    lists, mats = root / VOC / "ImageSets/Main", root / "Annotations_Part"
    out = root.with_suffix(".json")
    arguments = ["--split_path", lists, "--split", "train.txt", "--ann_path", mats, "--ann_out", out]
    subprocess.run([sys.executable, script, *arguments], check=True, stdout=subprocess.DEVNULL)


def bounds(root: Path) -> None:
    """What the time of partseg goes into."""
    contents = [path.read_bytes() for path in sorted((root / "Annotations_Part").iterdir())]
    spent = dict.fromkeys(("file to arrays, most of it inflating", "arrays to run-lengths"), 0.0)
    for content in contents:
        start = time.perf_counter()
        anno = load_variable(content, "anno")[0, 0]
        middle = time.perf_counter()
        masks = [
            mask
            for item in anno["objects"].ravel()
            for mask in (item["mask"], *(part["mask"] for part in item["parts"].ravel()))
        ]
        masks_to_segments(masks)
        spent["file to arrays, most of it inflating"] += middle - start
        spent["arrays to run-lengths"] += time.perf_counter() - middle
    for what, seconds in spent.items():
        print(f"  {what:40s} {1000 * seconds / len(contents):6.2f} ms per image")


if __name__ == "__main__":
    main()
