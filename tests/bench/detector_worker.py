"""A detector in a process of its own, which does what its standard input says and reports what that cost.

``original_detector`` starts two of them. This file, run by the original's environment, holds the original
VLPart, so it imports nothing of partseg.

    python detector_worker.py FOLDER THREADS DEVICE CONFIG        (in a clone of VLPart)

One line in, one line of JSON out. ``eval`` and ``train`` choose the mode, ``fp32``, ``tf32`` and ``amp`` (the
original in fp16, partseg in bf16) the numbers, ``results`` leaves what the model finds in FOLDER, ``detect``
and ``step`` are what is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

LEARNING_RATE, WEIGHT_DECAY = 5e-5, 1e-4  # as published
SOURCE = 2  # which of the original's training datasets the classes belong to; this one is not federated


class Detector(Protocol):
    """What is measured."""

    model: torch.nn.Module
    amp: bool

    def detect(self) -> Any:
        """Find objects in the first image."""

    def losses(self) -> dict[str, torch.Tensor]:
        """Of all images."""

    def step(self) -> Any:
        """One step of training on all images."""

    def detections(self) -> dict[str, Any]:
        """What :meth:`detect` finds, as arrays: boxes, scores, labels, masks."""


def serve(build: Callable[[Path, str], Detector], folder: Path, threads: int, device: str) -> None:
    """Obey until the standard input ends."""
    # Libraries print; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    # Samples are the first candidates, not random ones: both sides then do the same work on the same regions.
    torch.randperm = lambda n, device=None: torch.arange(n, device=device)  # type: ignore[assignment]
    detector = build(folder, device)
    tasks: dict[str, Callable[[], Any]] = {
        "eval": detector.model.eval,
        "train": detector.model.train,
        "detect": detector.detect,
        "step": detector.step,
        "results": lambda: _results(detector),
        **{name: partial(_numbers, detector, name) for name in ("fp32", "tf32", "amp")},
    }
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        forget_peak(device)
        wall, processor = time.perf_counter(), time.process_time()
        found = tasks[line.strip()]()
        if device != "cpu":
            torch.cuda.synchronize()
        row = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        if line.strip() == "results":
            np.savez(folder / f"{type(detector).__name__}.npz", **found)
        print(json.dumps(row | {"peak": peak(device)}), file=answers, flush=True)


def optimiser_step(optimiser: torch.optim.Optimizer, losses: Callable[[], dict[str, torch.Tensor]]) -> float:
    """One step; returns the sum of the losses."""
    total = torch.stack(list(losses().values())).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return total.item()


def _results(detector: Detector) -> dict[str, Any]:
    """Detections, losses (``loss.*``) and gradient norms (``gradient.*``)."""
    detector.model.eval()
    found = dict(detector.detections())
    detector.model.train()
    losses = detector.losses()
    found |= {f"loss.{name}": value.item() for name, value in losses.items()}
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in detector.model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient.{name}"] = parameter.grad.norm().item()
    detector.model.zero_grad(set_to_none=True)
    return found


def _numbers(detector: Detector, name: str) -> None:
    detector.amp = name == "amp"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"


def forget_peak(device: str) -> None:
    """Begin to look for the highest memory anew."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float:
    """Highest memory since it was forgotten, MiB: of the GPU's tensors, or of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Original:
    """The original VLPart on detectron2."""

    amp = False

    def __init__(self, folder: Path, device: str) -> None:
        # Imported by the original's text encoder, which detection does not use.
        clip, tokenizer = ModuleType("clip"), ModuleType("clip.simple_tokenizer")
        vars(clip)["__path__"], vars(tokenizer)["SimpleTokenizer"] = [], type("SimpleTokenizer", (), {})
        sys.modules |= {"clip": clip, "clip.simple_tokenizer": tokenizer}
        sys.path.insert(0, str(Path.cwd()))
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model
        from detectron2.structures import BitMasks, Boxes, Instances
        from vlpart.config import add_vlpart_config
        from vlpart.solver import build_custom_optimizer

        config = get_cfg()
        add_vlpart_config(config)
        config.merge_from_file(sys.argv[4])
        config.MODEL.DEVICE = device
        config.MODEL.TIMM.PRETRAINED = False
        config.FP16 = False
        config.SOLVER.BASE_LR, config.SOLVER.WEIGHT_DECAY = LEARNING_RATE, WEIGHT_DECAY
        texts = str(folder / "text.npy")
        config.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH_GROUP = [texts] * (SOURCE + 1)
        config.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_INFERENCE_PATH = texts
        config.MODEL.ROI_BOX_HEAD.USE_FED_LOSS_GROUP = [False] * (SOURCE + 1)
        self.model = build_model(config)
        loaded = self.model.load_state_dict(torch.load(folder / "weights.pth")["model"], strict=False)
        if loaded.missing_keys:
            raise SystemExit(f"the original wants {loaded.missing_keys[:3]}")
        self.optimiser = build_custom_optimizer(config, self.model)
        data = np.load(folder / "batch.npz")
        self.batch = []
        for i, pixels in enumerate(torch.from_numpy(data["images"])):
            size = tuple(pixels.shape[1:])
            known = Instances(size)
            known.gt_boxes = Boxes(torch.from_numpy(data[f"boxes{i}"]))
            known.gt_classes = torch.from_numpy(data[f"labels{i}"])
            known.gt_masks = BitMasks(torch.from_numpy(data[f"masks{i}"]).bool())
            self.batch.append(
                {
                    "image": pixels,
                    "height": size[0],
                    "width": size[1],
                    "instances": known,
                    "ann_type": "box",
                    "dataset_source": SOURCE,
                }
            )

    def detect(self) -> Any:
        with torch.no_grad():
            return self.model(self.batch[:1])[0]["instances"]

    def losses(self) -> dict[str, torch.Tensor]:
        from detectron2.utils.events import EventStorage

        self.model.fp16 = self.amp  # of training only: the original detects in float32
        with EventStorage(0):
            losses: dict[str, torch.Tensor] = self.model(self.batch)
        return losses

    def step(self) -> float:
        return optimiser_step(self.optimiser, self.losses)

    def detections(self) -> dict[str, Any]:
        found = self.detect()
        return {
            "boxes": found.pred_boxes.tensor.cpu().numpy(),
            "scores": found.scores.cpu().numpy(),
            "labels": found.pred_classes.cpu().numpy(),
            "masks": found.pred_masks.cpu().numpy(),
        }


if __name__ == "__main__":
    serve(Original, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
