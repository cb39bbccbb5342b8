"""The golden run of the original parser of VLPart: its weights, pictures and what it found at every step.

``ParserNetMixer`` with DINO ViT-S/8 at stride 4 and R50, on pictures made small (a short side of 112 pixels),
with weights from formulas. See ``golden/parser_mixer/a/README.md`` beside this repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from partseg.models.config import load_config
from partseg.models.vlpart import VLPart, build_model
from partseg.parsing.config import DescriptorConfig, ViTConfig
from partseg.parsing.forward import Transformer
from partseg.parsing.vit import build_vit
from tests.golden import formula

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
FOLDER = SHARED / "golden" / "parser_mixer" / "a"
PASCAL_PART = SHARED / "samples" / "pascal_part"
BASE_ANNOTATIONS = SHARED / "golden" / "pascal_part_convert" / "a" / "one_base.json"
CLASSES = 77  # of the detector: the parts of Pascal-Part's base classes
READING = DescriptorConfig(short_side=112)  # small, for speed; all else as published
# Without these gains random weights find boxes that fill the image and patches that all look alike.
GAINS = {
    "rpn_head.anchor_deltas.weight": 0.3,
    "bbox_pred.2.weight": 0.5,
    "model.pos_embed": 800.0,
    "fpn_output2.weight": 0.1,
    "fpn_output3.weight": 0.2,
    "model.cls_token": 20.0,
}

needs_golden = pytest.mark.skipif(not FOLDER.is_dir(), reason="the golden numbers are not in the repository")


@dataclass(frozen=True)
class Case:
    """One query image of the golden run.

    Attributes:
        number: 0, 1, 2.
        meta: its entry in ``meta.json``: ``query``, ``base_filename``, ``cat``, ``h``, ``w``, ``novel``, ...
    """

    number: int
    meta: dict[str, Any]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """What the original had at some step, for instance ``case["nn_2"]``."""
        found: NDArray[Any] = arrays()[f"q{self.number}.{name}"]
        return found

    @property
    def original(self) -> tuple[int, int]:
        """(height, width) of the photo, in which its final boxes are."""
        return int(self.meta["h"]), int(self.meta["w"])

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The query as DINO and the detector got it, uint8 RGB [h, w, 3]."""
        return pictures()[f"query_image.{self.meta['query']}"]

    @property
    def base_picture(self) -> NDArray[np.uint8]:
        """The base image that was chosen for it, as DINO got it."""
        return pictures()[f"base_image_lanczos.{self.meta['base_filename']}"]

    @cached_property
    def enlarged(self) -> Tensor:
        """The picture at a short side of 800 as the detector saw it, uint8 [3, H, W]."""
        with Image.open(FOLDER / f"image800_q{self.number}.png") as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    def check(self, name: str, found: Tensor) -> None:
        """Compare a tensor with the one of that name, or with what is kept of it.

        The tolerance is that of the golden run's README.
        """
        if f"q{self.number}.{name}" in arrays():
            expected, values = self[name], found.numpy()
        else:
            assert int(np.prod(self[f"{name}.shape"])) == found.numel(), name
            expected = self[f"{name}.vals"]
            values = found.flatten().numpy()[formula.sample_index(found.numel(), len(expected))]
        limit = 1e-4 * max(1.0, float(expected.std()))
        np.testing.assert_allclose(values, expected.reshape(values.shape), rtol=0, atol=limit, err_msg=name)


def cases(novel: bool | None = None) -> list[Case]:
    """The query images; only those of transfer (``novel``) or of the detector, if asked."""
    found = [Case(i, meta) for i, meta in enumerate(json.loads((FOLDER / "meta.json").read_text()))]
    return [case for case in found if novel is None or case.meta["novel"] == novel]


def arrays() -> dict[str, NDArray[Any]]:
    """Everything in ``golden.npz``."""
    return _file("golden.npz")


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Everything in ``images.npz``."""
    return _file("images.npz")


_read: dict[str, dict[str, NDArray[Any]]] = {}


def _file(name: str) -> dict[str, NDArray[Any]]:
    if name not in _read:
        with np.load(FOLDER / name) as data:
            _read[name] = {key: data[key] for key in data.files}
    return _read[name]


def base_names() -> list[str]:
    """Stems of the base images' names, in the order the original looks through them."""
    return sorted(name.partition(".")[2] for name in arrays() if name.startswith("base_token."))


def formula_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the original's model under the original's name."""
    gain = next((gain for part, gain in GAINS.items() if part in key), 1.0) if len(shape) > 1 else 1.0
    return torch.from_numpy(formula.tensor(key, shape, gain=gain))


def formula_vit() -> Transformer:
    """DINO's ViT-S/8 with weights from formulas."""
    model = build_vit(ViTConfig())
    state = {name: formula_value(f"model.{name}", tuple(v.shape)) for name, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def formula_detector() -> VLPart:
    """VLPart R50 with weights from formulas, in evaluation mode."""
    model = build_model(load_config(ROOT / "configs/models/vlpart_r50.yaml"))
    state = {name: formula_value(name, tuple(v.shape)) for name, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def text() -> Tensor:
    """Embeddings of the detector's classes, float32 [77, 1024]."""
    return torch.from_numpy(formula.tensor("classifier_base", (CLASSES, 1024)))


def photo(stem: str) -> NDArray[np.uint8]:
    """A photo of the Pascal-Part samples in full size, uint8 RGB [H, W, 3]."""
    with Image.open(PASCAL_PART / "VOCdevkit" / "VOC2010" / "JPEGImages" / f"{stem}.jpg") as image:
        return np.array(image.convert("RGB"))
