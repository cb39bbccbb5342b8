"""A parser in a process of its own, which does what its standard input says and reports what that cost.

``parse_speed`` starts two of them. This file, run by the original's environment, holds the original parser of
VLPart, so it imports nothing of partseg.

    python original_parser.py FOLDER THREADS DEVICE DINO        (in a clone of VLPart)

DINO is a clone of facebookresearch/dino, which the original would fetch. What the original no longer runs
without is put back: ``np.float``, and a CPU for base tokens, which go to a GPU whatever the device is.

One line in, one line of JSON out: ``results`` leaves what is found in FOLDER, ``parse`` is what is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent))  # the original's environment knows no package tests.bench
from detector_worker import forget_peak, peak


class Parser(Protocol):
    """What is measured."""

    def parse(self) -> Sequence[tuple[Any, Any]]:
        """Of every query the boxes, [N, 4] xyxy, and the categories, [N]."""


def serve(build: Callable[[Path, str], Parser], folder: Path, threads: int, device: str) -> None:
    """Obey until the standard input ends."""
    # Libraries print; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    parser = build(folder, device)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        forget_peak(device)
        wall, processor = time.perf_counter(), time.process_time()
        found = parser.parse()
        if device != "cpu":
            torch.cuda.synchronize()
        row = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        if line.strip() == "results":
            arrays = {f"boxes{i}": boxes for i, (boxes, _) in enumerate(found)}
            arrays |= {f"categories{i}": categories for i, (_, categories) in enumerate(found)}
            np.savez(folder / f"{type(parser).__name__}.npz", **arrays)
        print(json.dumps(row | {"peak": peak(device)}), file=answers, flush=True)


class Original:
    """The original's transfer path, one image at a time, as its data loader and evaluator use it."""

    def __init__(self, folder: Path, device: str) -> None:
        _put_back(device, Path(sys.argv[4]))
        from detectron2.data import transforms
        from detectron2.data.detection_utils import read_image

        self.folder, self.read = folder, read_image
        tokens = folder / "tokens"
        tokens.mkdir(exist_ok=True)
        builder = _model(folder, device, build=True)
        self.shrink = transforms.ResizeShortestEdge(builder.dino_min_size, 3 * builder.dino_min_size)
        for path in sorted((folder / "base").iterdir()):
            builder([self._input(path)])
        self.model = _model(folder, device, build=False)

    def parse(self) -> list[tuple[Any, Any]]:
        """Boxes and categories of all queries."""
        found = []
        for path in sorted((self.folder / "queries").iterdir()):
            with torch.no_grad():
                instances = self.model([self._input(path)])[0]["instances"]
            found.append((instances.pred_boxes.tensor.cpu().numpy(), instances.pred_classes.cpu().numpy()))
        return found

    def _input(self, path: Path) -> dict[str, Any]:
        image = self.read(str(path), format="RGB")
        small = self.shrink.get_transform(image).apply_image(image)
        pixels = torch.as_tensor(np.ascontiguousarray(small.transpose(2, 0, 1)))
        height, width = image.shape[:2]
        return {
            "image": pixels,
            "height": height,
            "width": width,
            "file_name": str(path),
            "pos_category_ids": [0],  # no base object: transfer
        }


def _put_back(device: str, dino: Path) -> None:
    # Imported by the original's text encoder, which parsing does not use.
    clip, tokenizer = ModuleType("clip"), ModuleType("clip.simple_tokenizer")
    vars(clip)["__path__"], vars(tokenizer)["SimpleTokenizer"] = [], type("SimpleTokenizer", (), {})
    sys.modules |= {"clip": clip, "clip.simple_tokenizer": tokenizer}
    sys.path[:0] = [str(Path.cwd()), str(dino)]
    import vision_transformer  # type: ignore[import-not-found]

    def load(_repository: str, name: str) -> torch.nn.Module:
        if name != "dino_vits8":
            raise SystemExit(f"the original asks for {name}")
        model: torch.nn.Module = vision_transformer.vit_small(patch_size=8, num_classes=0)
        return model

    torch.hub.load = load
    vars(np)["float"] = float
    if device == "cpu":
        move = torch.Tensor.to

        def to(self: torch.Tensor, *where: Any, **options: Any) -> torch.Tensor:
            return move(self, *("cpu" if place == "cuda" else place for place in where), **options)

        torch.Tensor.to = to  # type: ignore[method-assign,assignment]


def _model(folder: Path, device: str, build: bool) -> Any:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from vlpart.config import add_vlpart_config

    config = get_cfg()
    add_vlpart_config(config)
    config.merge_from_file("configs/ann_parser/find_ins11_mixer.yaml")
    config.MODEL.DEVICE = device
    config.MODEL.TIMM.PRETRAINED = False
    texts = str(folder / "text.npy")
    config.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = texts
    config.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_INFERENCE_PATH = texts
    config.DINO.BUILD_BASEDATA = build
    config.DINO.BASEDATA_SAVE_DIR = str(folder / "tokens")
    config.DINO.BASEDATA_ANN_PATH = str(folder / "annotations.json")
    config.DINO.BASEDATA_IMS_PATH = f"{folder / 'base'}{os.sep}"
    model = build_model(config).eval()
    loaded = model.load_state_dict(torch.load(folder / "weights.pth"), strict=False)
    missing = [name for name in loaded.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or loaded.unexpected_keys:
        raise SystemExit(f"the weights do not fit the original: {missing[:3]}, {loaded.unexpected_keys[:3]}")
    return model


if __name__ == "__main__":
    serve(Original, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
