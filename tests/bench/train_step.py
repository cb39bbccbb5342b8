"""Seconds per training step of a detector, split into forward, backward and optimiser.

    python -m tests.bench.train_step --model configs/models/vlpart_r50.yaml --images 2 --side 800

Random images with random boxes and masks, so that nothing but the model is measured. The plain float32
step is measured beside the variants in the same run; the last column is how many times faster each one is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from partseg.models.config import ModelConfig, load_config
from partseg.models.structures import Batch, Target
from partseg.models.vlpart import VLPart, build_model

OBJECTS, CLASSES = 12, 93  # boxes per image as in Pascal-Part, and its part categories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=Path("configs/models/tiny.yaml"))
    parser.add_argument("--images", type=int, default=2, help="images per step")
    parser.add_argument("--side", type=int, default=128, help="height and width, pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--variants", default="fp32", help="of fp32, tf32, bf16, compile; comma separated")
    options = parser.parse_args()
    config = load_config(options.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{options.model.stem}, {options.images} x {options.side} px, {device.type} ({name})")
    print(
        f"{'variant':10} {'step ms':>9} {'forward':>9} {'backward':>9} {'optimiser':>9} {'img/s':>8} {'x':>6}"
    )
    plain = 0.0
    for variant in options.variants.split(","):
        row = measure(config, variant, options.images, options.side, options.steps, device)
        step = sum(row)
        plain = plain or step
        cells = " ".join(f"{1000 * value:9.1f}" for value in (step, *row))
        print(f"{variant:10} {cells} {options.images / step:8.1f} {plain / step:6.2f}", flush=True)
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def measure(
    config: ModelConfig, variant: str, images: int, side: int, steps: int, device: torch.device
) -> tuple[float, float, float]:
    """Median seconds of forward, backward and optimiser."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = variant == "tf32"
    model = build_model(config).to(device).train()
    if variant == "compile":
        model.backbone = torch.compile(model.backbone)
    amp = torch.bfloat16 if variant in ("bf16", "compile") else None
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5)
    batch = random_batch(config, images, side).to(device)
    rows = [one_step(model, optimiser, batch, amp, device) for _ in range(steps + 3)][3:]
    forward, backward, update = (statistics.median(column) for column in zip(*rows, strict=True))
    return forward, backward, update


def one_step(
    model: VLPart,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    amp: torch.dtype | None,
    device: torch.device,
) -> tuple[float, float, float]:
    loss, forward = timed(
        lambda: sum(model.losses(batch, amp=amp).values(), torch.zeros((), device=device)), device
    )
    optimiser.zero_grad(set_to_none=True)
    _, backward = timed(loss.backward, device)
    _, update = timed(optimiser.step, device)
    return forward, backward, update


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def random_batch(config: ModelConfig, images: int, side: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    targets = []
    for _ in range(images):
        low = torch.rand(OBJECTS, 2, generator=generator) * side * 0.7
        boxes = torch.cat([low, low + side * (0.05 + 0.25 * torch.rand(OBJECTS, 2, generator=generator))], 1)
        masks = torch.zeros(OBJECTS, side, side, dtype=torch.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator)
        targets.append(Target(boxes=boxes, labels=labels, masks=masks))
    pictures = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
    text = torch.randn(CLASSES, config.text_dim, generator=generator)
    return Batch(images=list(pictures), targets=targets, annotation="part", text=text)


if __name__ == "__main__":
    main()
