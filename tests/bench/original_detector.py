"""VLPart beside the original on detectron2: seconds, memory and results of detection and of a training step.

    python -m tests.bench.original_detector --original-python PYTHON --vlpart CLONE

PYTHON is the interpreter of an environment with torch (of the same version), detectron2 built from its
repository and timm 0.5.4; CLONE is a clone of VLPart's repository. Both sides get the same weights, images of
320 x 480, boxes and masks, and sample the same regions. Each is a process of its own with the same number of
threads; they work in turn, never at once. What they find, their losses and the norms of their gradients are
compared first.

Detection is one image: the original ends with full-size masks, partseg with run-lengths. A step of training
is two images: forward, backward and AdamW, each side with the optimiser it trains with.

On a GPU: ``--device cuda --size 800x1333 --numbers fp32,tf32,amp``, with a detectron2 built for it. In
``amp`` the original's backbone trains with fp16, partseg's with bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partseg.models.checkpoints import export_vlpart
from partseg.models.config import load_config
from partseg.models.structures import Batch, Target
from partseg.models.vlpart import VLPart, build_model
from tests.bench import detector_worker
from tests.bench.detector_worker import LEARNING_RATE, WEIGHT_DECAY, optimiser_step, serve
from tests.golden import formula

IMAGES, OBJECTS, CLASSES = 2, 8, 93
CONFIGS = {
    "r50": ("vlpart_r50.yaml", "r50_lvis_paco_pascalpart_partimagenet.yaml"),
    "swinb": ("vlpart_swinb.yaml", "swinbase_cascade_lvis_paco_pascalpart_partimagenet.yaml"),
}
# Without these the random weights give boxes that fill the image (see the golden runs).
GAINS = {"rpn_head.anchor_deltas.weight": 0.3, "bbox_pred.2.weight": 0.5}
ROOT = Path(__file__).parents[2]
HEAD = f"{'':22} {'original ms':>11} {'partseg ms':>10} {'x':>5} {'processor s':>15} {'x':>5} {'MiB':>14}"


class Ours:
    """partseg's VLPart, used as :class:`partseg.predict.Predictor` and :mod:`partseg.training` use it."""

    amp = False

    def __init__(self, folder: Path, device: str) -> None:
        self.model = formula_model((folder / "config.txt").read_text()).to(device)
        data = np.load(folder / "batch.npz")
        self.images = list(torch.from_numpy(data["images"]))
        self.text = torch.from_numpy(np.load(folder / "text.npy"))
        targets = [
            Target(
                boxes=torch.from_numpy(data[f"boxes{i}"]),
                labels=torch.from_numpy(data[f"labels{i}"]),
                masks=torch.from_numpy(data[f"masks{i}"]),
            )
            for i in range(len(self.images))
        ]
        batch = Batch(images=self.images, targets=targets, annotation="box", text=self.text)
        self.batch = batch.to(torch.device(device))
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )

    def detect(self) -> Any:
        with torch.inference_mode():
            first = self.images[0]
            return self.model.detect_resized([first], self.text, [(first.shape[1], first.shape[2])])[0]

    def losses(self) -> dict[str, torch.Tensor]:
        return self.model.losses(self.batch, amp=torch.bfloat16 if self.amp else None)

    def step(self) -> float:
        return optimiser_step(self.optimiser, self.losses)

    def detections(self) -> dict[str, Any]:
        found = self.detect()
        return {
            "boxes": found.boxes.numpy(),
            "scores": found.scores.numpy(),
            "labels": found.labels.numpy(),
            "masks": found.masks(),
        }


def formula_model(config: str) -> VLPart:
    """A model of ``configs/models`` with weights that any library can make again."""
    model = build_model(load_config(ROOT / "configs/models" / config))
    state = {}
    for name, value in model.state_dict().items():
        gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
        state[name] = torch.from_numpy(formula.tensor(name, tuple(value.shape), gain=gain))
    model.load_state_dict(state)
    return model


def write_inputs(folder: Path, config: str, height: int, width: int) -> None:
    """Weights, images and truth, once for both sides."""
    (folder / "config.txt").write_text(config)
    export_vlpart(formula_model(config), folder / "weights.pth")
    np.save(folder / "text.npy", formula.tensor("classifier_2", (CLASSES, 1024)))
    images = np.stack([formula.image(height, width, seed) for seed in range(IMAGES)])
    arrays: dict[str, Any] = {"images": images.transpose(0, 3, 1, 2)}
    y, x = np.mgrid[0:height, 0:width]
    for image in range(IMAGES):
        rows = formula.integers(f"truth:{image}", 5 * OBJECTS).reshape(OBJECTS, 5)
        w, h = 24 + rows[:, 0] % (width // 2), 24 + rows[:, 1] % (height // 2)
        left, top = rows[:, 2] % (width - w), rows[:, 3] % (height - h)
        inside = [
            ((2 * x - 2 * x0 - bw) / bw) ** 2 + ((2 * y - 2 * y0 - bh) / bh) ** 2 <= 1
            for x0, y0, bw, bh in zip(left, top, w, h, strict=True)
        ]
        arrays[f"boxes{image}"] = np.stack([left, top, left + w, top + h], 1).astype(np.float32)
        arrays[f"labels{image}"] = rows[:, 4] % CLASSES
        arrays[f"masks{image}"] = np.stack(inside).astype(np.uint8)
    np.savez(folder / "batch.npz", **arrays)


@dataclass(frozen=True, slots=True)
class Side:
    """One running worker."""

    process: subprocess.Popen[str]

    def do(self, task: str) -> dict[str, float]:
        """Have a task done and get its cost."""
        assert self.process.stdin is not None
        print(task, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        """The next line of the worker."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended; its messages are above")
        row: dict[str, float] = json.loads(line)
        return row


@contextmanager
def running(command: list[str], threads: int, folder: Path) -> Iterator[Side]:
    """Start a worker; it ends with the block."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        side = Side(process)
        try:
            side.answer()
            yield side
        finally:
            assert process.stdin is not None
            process.stdin.close()


def compare(folder: Path) -> str:
    """How far the two sides' results are apart, in words."""
    theirs, ours = dict(np.load(folder / "Original.npz")), dict(np.load(folder / "Ours.npz"))
    distance = np.abs(theirs["boxes"][:, None] - ours["boxes"][None]).max(2)
    distance[theirs["labels"][:, None] != ours["labels"][None]] = np.inf
    partner = distance.argmin(1)
    paired = len(np.unique(partner)) == len(theirs["boxes"]) == len(ours["boxes"])
    box, score = distance.min(1).max(), np.abs(theirs["scores"] - ours["scores"][partner]).max()
    mask = (theirs["masks"] != ours["masks"][partner]).sum((1, 2)).max()
    # The original also lists the losses of other kinds of data, as zeros.
    losses = {name for name in theirs if name.startswith("loss.") and theirs[name] != 0}
    gradients = {name for name in theirs if name.startswith("gradient.")}
    same = losses | gradients == {name for name in ours if name.startswith(("loss.", "gradient."))}
    loss = max(_relative(theirs[name], ours.get(name, np.nan)) for name in losses)
    gradient = max(_relative(theirs[name], ours.get(name, np.nan)) for name in gradients)
    return (
        f"{len(theirs['boxes'])} detections, {'all paired' if paired else 'NOT PAIRED'}: boxes within "
        f"{box:.1e} px, scores within {score:.1e}, masks within {mask} of {theirs['masks'][0].size} pixels; "
        f"{len(losses)} losses within {loss:.1e}, {len(gradients)} gradient norms within {gradient:.1e} "
        f"(relative){'' if same else ', of DIFFERENT names'}"
    )


def _relative(first: Any, second: Any) -> float:
    return float(abs(first - second) / max(abs(first), 1e-5))


def measure(model: str, options: argparse.Namespace) -> None:
    """Compare the results, then measure with every number of threads."""
    ours, theirs = CONFIGS[model]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, ours, *map(int, options.size.split("x")))
        for threads in map(int, options.threads.split(",")):
            original = [
                str(options.original_python.absolute()),
                detector_worker.__file__,
                str(folder),
                str(threads),
                options.device,
                str(options.vlpart.absolute() / "configs/joint" / theirs),
            ]
            serve_ours = ["-m", "tests.bench.original_detector", "--serve", str(folder), str(threads)]
            own = [sys.executable, *serve_ours, options.device]
            with running(original, threads, options.vlpart) as a, running(own, threads, ROOT) as b:
                if not list(folder.glob("Ours.npz")):
                    a.do("results")
                    b.do("results")
                    print(f"{model}: {compare(folder)}\n{HEAD}")
                modes = {"detect": ("eval", "fp32")}
                modes |= {f"step {numbers}": ("train", numbers) for numbers in options.numbers.split(",")}
                for name, mode in modes.items():
                    task = name.split()[0]
                    if task not in options.tasks.split(","):
                        continue
                    for setting in mode:
                        a.do(setting)
                        b.do(setting)
                    rows = [(a.do(task), b.do(task)) for _ in range(options.rounds + 2)][2:]
                    print(_line(f"{name}, {threads} threads", rows), flush=True)


def _line(name: str, rows: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    wall = [1000 * statistics.median(row[side]["wall"] for row in rows) for side in (0, 1)]
    # Of processor time the least: other work on the machine can only add to it.
    processor = [min(row[side]["processor"] for row in rows) for side in (0, 1)]
    peaks = [max(row[side]["peak"] for row in rows) for side in (0, 1)]
    return (
        f"{name:22} {wall[0]:11.0f} {wall[1]:10.0f} {wall[0] / wall[1]:5.2f} "
        f"{processor[0]:9.2f} {processor[1]:5.2f} {processor[0] / processor[1]:5.2f} "
        f"{peaks[0]:8.0f} {peaks[1]:5.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--original-python", type=Path)
    parser.add_argument("--vlpart", type=Path)
    parser.add_argument("--models", default="r50", help=f"of {', '.join(CONFIGS)}; comma separated")
    parser.add_argument("--tasks", default="detect,step")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=10, help="measured after two that are not")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="320x480", help="height x width of the images")
    parser.add_argument("--numbers", default="fp32", help="of training: fp32, tf32, amp; comma separated")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Ours, Path(options.serve[0]), int(options.serve[1]), options.serve[2])
        return
    if options.original_python is None or options.vlpart is None:
        raise SystemExit("name the original with --original-python and --vlpart")
    print(f"torch {torch.__version__}, {options.size}, {options.device}, medians of {options.rounds} rounds")
    for model in options.models.split(","):
        measure(model, options)


if __name__ == "__main__":
    main()
