"""The original VLPart and this one agree: same weights, same images, same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from partseg.models.structures import Annotation
from partseg.models.vlpart import VLPart
from tests.golden.vlpart import (
    ORIGINAL_LOSSES,
    ROOT,
    batch,
    check,
    check_detections,
    check_gradients,
    formula_model,
    frequencies,
    picture,
    text,
    without_chance,
)

GOLDEN = ROOT / "tests/golden/vlpart_r50"


@pytest.fixture(scope="module")
def model() -> VLPart:
    return formula_model("vlpart_r50.yaml")


def test_inference(model: VLPart) -> None:
    golden = dict(np.load(GOLDEN / "golden.npz"))
    image = picture(256, 320, 1)
    model.eval()
    with torch.no_grad():
        features = model._features([image])
        for level, feature in enumerate(features):
            check(f"fpn.p{level + 2}", feature, golden)
        anchors, logits, deltas = model.proposal_generator(features)
        (proposals,) = model.proposal_generator.propose(anchors, logits, deltas, [(256, 320)])
        # Neighbours whose logits differ by less than float32 resolves may change places.
        check("proposals.logits", proposals.logits, golden)
        given = torch.from_numpy(golden["proposals.boxes"])
        distance = (proposals.boxes[:, None] - given[None]).abs().amax(2)
        assert distance.min(1).values.max() < 1e-2
        assert len(distance.argmin(1).unique()) == len(given)
        scores, boxes = model.roi_heads.predict(features[:4], [given], text(2))
        check("stage0.class_logits", scores, golden)
        check("stage0.box_deltas", boxes, golden)
    (found,) = model.detect_resized([image], text(2), [(307, 384)])
    check_detections(found, golden)


@pytest.mark.parametrize(
    ("case", "annotation", "index"),
    [
        ("box_fed_arange", "box", 0),
        pytest.param("part_nofed_arange", "box", 2, marks=pytest.mark.slow),
        pytest.param("ppart_arange", "parsed_part", 2, marks=pytest.mark.slow),
        ("image_arange", "image", 2),
    ],
)
def test_losses_and_gradients(
    model: VLPart, case: str, annotation: Annotation, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_chance(monkeypatch)
    golden = json.loads((GOLDEN / "losses.json").read_text())
    federated = case == "box_fed_arange"
    counts = frequencies("roi_heads.box_predictor.freq_weight_0", 1203) if federated else None
    model.train()
    model.zero_grad()
    losses = model.losses(batch(annotation, index, counts))
    for name, value in losses.items():
        assert value.item() == pytest.approx(
            golden["losses"][case]["losses"][ORIGINAL_LOSSES.get(name, name)], rel=1e-4, abs=1e-7
        ), name
    torch.stack(list(losses.values())).sum().backward()
    norms = np.load(GOLDEN / "grads.npz")[f"gradnorm.{case}"]
    check_gradients(model, golden["grad_param_names"], norms)
