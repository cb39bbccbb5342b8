"""Seconds per training step of a detector, split into forward, backward and optimiser.

    python -m tests.bench.train_step                              (the tiny model, on a CPU)
    python -m tests.bench.train_step --model configs/models/vlpart_r50.yaml --images 2 --side 1032 \\
        --variants fp32,tf32,bf16,compile,bf16+recompute          (on a GPU; as many pixels as 800 x 1333)

Random images with random boxes and masks, so that nothing but the model is measured. The first variant is
the yardstick: the last but one column is how many times faster each one is, the last its peak memory (on a
CPU the whole process's so far). ``original_detector --device cuda`` measures the original beside them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from partseg.models.config import load_config
from partseg.training.step_times import StepTimes, measure_steps

VARIANTS = ("fp32", "tf32", "bf16", "fp16", "compile", "recompute")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=Path("configs/models/tiny.yaml"))
    parser.add_argument("--images", type=int, default=2, help="images per step")
    parser.add_argument("--side", type=int, default=128, help="height and width, pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument(
        "--variants",
        default="fp32",
        help=f"of {', '.join(VARIANTS)} and sums like bf16+recompute; comma separated. compile is with bf16",
    )
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.model.stem}, {options.images} x {options.side} px, {name}")
    print(
        f"{'variant':16} {'step ms':>9} {'forward':>9} {'backward':>9} {'optimiser':>9} {'img/s':>8} "
        f"{'x':>6} {'MiB':>7}"
    )
    first: StepTimes | None = None
    for variant in options.variants.split(","):
        found = measure(variant.split("+"), options)
        first = first or found
        times = (found.step, found.forward, found.backward, found.optimiser)
        print(
            f"{variant:16} {' '.join(f'{1000 * seconds:9.1f}' for seconds in times)} "
            f"{found.images_per_second:8.1f} {first.step / found.step:6.2f} {found.peak_memory / 2**20:7.0f}",
            flush=True,
        )


def measure(parts: list[str], options: argparse.Namespace) -> StepTimes:
    """One row of the table."""
    if unknown := set(parts) - set(VARIANTS):
        raise SystemExit(f"no variant {sorted(unknown)[0]!r}; there are {', '.join(VARIANTS)}")
    with tf32("tf32" in parts):
        return measure_steps(
            load_config(options.model),
            images=options.images,
            side=options.side,
            steps=options.steps,
            amp="fp16" if "fp16" in parts else "bf16" if {"bf16", "compile"} & set(parts) else "none",
            compile="compile" in parts,
            recompute="recompute" in parts,
        )


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Whether a GPU may multiply float32 numbers with 10 bits of mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


if __name__ == "__main__":
    main()
