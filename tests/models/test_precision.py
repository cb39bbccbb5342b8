"""How far a float32 run is from a float64 run: as far as the original's is.

Of the original's float64 run the golden sets keep the losses and how its detections differ from those in
float32 (``losses_float64`` and ``inference_float64_check`` in ``losses.json``). Networks are float64 in it,
boxes and scores float32, as here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.layers import DropPath

from partseg.models import losses as region_losses
from partseg.models.structures import Detections
from partseg.models.vlpart import VLPart
from tests.golden.vlpart import ROOT, batch, formula_model, frequencies, picture, text, without_chance

pytestmark = pytest.mark.slow  # the golden tests of the same runs are in the ordinary suite

# Our differences come out of another order of additions than the original's; they may be so much larger.
SLACK = 4
both = pytest.mark.parametrize("name", ["vlpart_r50", "vlpart_swinb"], scope="module")


@pytest.fixture(scope="module")
def runs(name: str) -> tuple[VLPart, Detections, Detections, dict[str, Any]]:
    """The model in float64, what it and its float32 form find, and what the original's runs say."""
    golden = json.loads((ROOT / "tests/golden" / name / "losses.json").read_text())
    model = formula_model(f"{name}.yaml").eval()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # as in the golden run
    image = picture(256, 320, 1)
    found = []
    for kind in (torch.float32, torch.float64):
        found += model.to(kind).detect_resized([image], text(2), [(307, 384)])
    return model, found[0], found[1], golden


@both
def test_detections(runs: tuple[VLPart, Detections, Detections, dict[str, Any]]) -> None:
    _, single, double, golden = runs
    original = golden["inference_float64_check"]
    assert (len(single), len(double)) == (original["n32"], original["n64"])
    distance = (single.boxes[:, None] - double.boxes[None]).abs().amax(2)
    distance[single.labels[:, None] != double.labels[None]] = torch.inf
    nearest, row = distance.min(1)
    assert len(row.unique()) == original["matched_32_in_64"]
    assert nearest.max() <= SLACK * original["matched_max_box_diff"]  # 0.09 and 0.08 thousandths of a pixel
    assert (single.scores - double.scores[row]).abs().max() <= SLACK * original["matched_max_score_diff"]
    areas = [found.masks().sum((1, 2)).astype(int) for found in (single, double)]
    assert abs(areas[0] - areas[1][row]).max() <= max(3, SLACK * original["matched_max_mask_area_diff"])


@both
def test_losses(
    runs: tuple[VLPart, Detections, Detections, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _, golden = runs
    case = "box_fed_arange"
    without_chance(monkeypatch)
    cascade = len(model.roi_heads.stages) > 1
    # The golden run's formulas gave each stage frequencies of its own; in a training they are equal.
    keys = [f"{k}.freq_weight_0" for k in range(3)] if cascade else ["freq_weight_0"]
    counts = iter([frequencies(f"roi_heads.box_predictor.{key}", 1203) for key in keys])
    draw = region_losses.federated_weight
    monkeypatch.setattr(
        region_losses,
        "federated_weight",
        lambda labels, given, **options: draw(labels, next(counts), **options),
    )
    model.double().train()
    with torch.no_grad():
        found = model.losses(replace(batch("box", 0), image_counts=torch.ones(1203)))
    model.eval()
    for name, value in found.items():
        precise, single = golden["losses_float64"][case][name], golden["losses"][case]["losses"][name]
        # The original's number, up to what stays float32 in its run or in ours: boxes, where regions are
        # sampled, the texts' unit vectors and some of the losses themselves. A few steps of 2**-24.
        assert value.item() == pytest.approx(precise, rel=2e-7), name
        # And what float32 loses, here and there, see the other golden tests.
        assert value.item() == pytest.approx(single, rel=2e-6), name
