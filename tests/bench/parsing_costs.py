"""Time and memory of the steps of a transfer: describing an image, and searching the base index.

    python -m tests.bench.parsing_costs [--tokens 100000]

One thread. Describing is DINO ViT-S/8 at stride 4 with random weights, on images of 3:4 with a short side of
224 and of 336 pixels, the published sizes; searching is exact, among random tokens of 384 numbers. Memory is
what the process needs beyond what it had before, and of that what is mapped from the index's file, which the
system takes back when it needs it.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from partseg.parsing.config import DescriptorConfig, ViTConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.index import BaseIndex
from partseg.parsing.vit import build_vit
from tests.bench.detector_worker import forget_peak, peak

DIM = 384


def cost(work: Callable[[], object], runs: int) -> str:
    """Medians of time, and the highest memory of the first run."""
    ctypes.CDLL(None).malloc_trim(0)  # give back what earlier work left
    before, mapped = _memory("VmRSS"), _memory("RssFile")
    forget_peak("cpu")
    work()
    memory = f"{peak('cpu') - before:5.0f} MiB, {_memory('RssFile') - mapped:4.0f} of them mapped"
    rows = []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        rows.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = (1000 * float(np.median(column)) for column in zip(*rows, strict=True))
    return f"{wall:8.1f} ms, processor {processor:8.1f} ms, {memory}"


def _memory(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = torch.randn(options.tokens, DIM, generator=draw)
        BaseIndex(tokens=tokens, image_ids=torch.arange(options.tokens)).save(folder)
        del tokens
        size = (folder / "tokens.npy").stat().st_size / 2**20
        print(f"{options.tokens} tokens, {size:.0f} MiB on disk")
        for count, k in ((1, 1), (1, 5), (16, 1), (64, 1)):
            queries = torch.randn(count, DIM, generator=draw)
            index = BaseIndex.load(folder)
            line = cost(lambda index=index, queries=queries, k=k: index.nearest(queries, k), options.runs)
            print(f"search {count:3} queries, {k} nearest: {line}")
    torch.manual_seed(0)
    describer = Describer(build_vit(ViTConfig()), DescriptorConfig())
    for height, width in ((224, 299), (336, 448)):
        image = torch.randn(3, height, width, generator=draw)
        line = cost(lambda image=image: describer.describe([image]), max(1, options.runs // 3))
        print(f"describe {height} x {width}: {line}")


if __name__ == "__main__":
    main()
