"""The original VLPart with Swin-B and this one agree: same weights, same images, same numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from partseg.models import losses as region_losses
from partseg.models.images import to_batch
from partseg.models.structures import Annotation, Proposals
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

GOLDEN = ROOT / "tests/golden/vlpart_swinb"
SIZE = (256, 320)


@pytest.fixture(scope="module")
def model() -> VLPart:
    model = formula_model("vlpart_swinb.yaml")
    drops = [module for module in model.modules() if isinstance(module, DropPath)]
    # Two residual branches per block; the first block of the 24 has none left out.
    rates = np.repeat(np.linspace(0, 0.3, 24)[1:], 2)
    np.testing.assert_allclose([drop.drop_prob for drop in drops], rates, rtol=1e-6)
    for drop in drops:
        drop.drop_prob = 0.0  # as in the golden run
    return model


def test_inference(model: VLPart, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = dict(np.load(GOLDEN / "golden.npz"))
    image = picture(*SIZE, 1)
    heads = model.roi_heads
    model.eval()
    with torch.no_grad():
        normalised = to_batch([image], model.pixel_mean, model.pixel_std)
        check("image_normalized", normalised, golden)
        levels = model.backbone.bottom_up(normalised)
        for level, feature in enumerate(levels):
            check(f"bottom_up.swin{level}", feature, golden)
        monkeypatch.setattr(model.backbone.bottom_up, "forward", lambda images: levels)  # saves time
        features = model._features([image])
        anchors, logits, deltas = model.proposal_generator(features)
        for level, feature in enumerate(features):
            check(f"fpn.p{level + 2}", feature, golden)
            cells = (1, *feature.shape[2:])
            check(f"rpn.objectness.{level}", logits[level].view(*cells, 3).permute(0, 3, 1, 2), golden)
            check(f"rpn.deltas.{level}", deltas[level].view(*cells, 12).permute(0, 3, 1, 2), golden)
        (found,) = model.proposal_generator.propose(anchors, logits, deltas, [SIZE])
        # Neighbours whose logits differ by less than float32 resolves may change places.
        check("proposals.logits", found.logits, golden)
        given = torch.from_numpy(golden["proposals.boxes"])
        distance = (found.boxes[:, None] - given[None]).abs().amax(2)
        assert distance.min(1).values.max() < 1e-2
        assert len(distance.argmin(1).unique()) == len(given)

        proposals = Proposals(boxes=given, logits=torch.from_numpy(golden["proposals.logits"]), size=SIZE)
        pooled = heads._pool(features[:4], [given], 7)
        check("roi_pool_7x7", pooled, golden)
        check("box_head_out", heads.get_submodule("box_head.0")(pooled), golden)
        for stage, output in enumerate(heads._run(features[:4], [given], [proposals], text(2))):
            check(f"stage{stage}.class_logits", output.logits, golden)
            check(f"stage{stage}.box_deltas", output.deltas, golden)
        (boxes,), (scores,) = heads.refine(features[:4], [proposals], text(2))
        boxes, scores, _ = heads.select(boxes, scores, size=SIZE, options=model.config.inference)
        distance = (boxes[:, None] - torch.from_numpy(golden["raw.boxes"])[None]).abs().amax(2)
        assert distance.min(1).values.max() < 1e-2
        assert len(boxes) == len(golden["raw.boxes"])
        masks = heads.mask_logits(features[:4], [torch.from_numpy(golden["raw.boxes"])]).sigmoid()
        check("raw.mask_probs_28x28", masks[:, None], golden)
    (detections,) = model.detect_resized([image], text(2), [(307, 384)])
    check_detections(detections, golden)


@pytest.mark.parametrize(
    ("case", "annotation", "index"),
    [
        pytest.param("box_fed_arange", "box", 0, marks=pytest.mark.slow),
        pytest.param("box_fed_all", "box", 0, marks=pytest.mark.slow),
        pytest.param("part_nofed_arange", "box", 2, marks=pytest.mark.slow),
        pytest.param("ppart_arange", "parsed_part", 2, marks=pytest.mark.slow),
        pytest.param("image_arange", "image", 2, marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients(
    model: VLPart, case: str, annotation: Annotation, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_chance(monkeypatch)
    model.to(memory_format=torch.channels_last)
    if case == "box_fed_all":
        # Two objectness logits differ by 1.5e-8. Which comes first depends on the memory layout of the
        # convolutions, and decides whether one of 3993 regions survives: take the original's layout.
        model.to(memory_format=torch.contiguous_format)
        bottom_up = model.backbone.bottom_up
        forward = bottom_up.forward
        monkeypatch.setattr(
            bottom_up, "forward", lambda images: [level.contiguous() for level in forward(images)]
        )
        for part, count in ((model.proposal_generator, 10**6), (model.roi_heads, 10**5)):
            config = part.config.model_copy(update={"samples_per_image": count})
            monkeypatch.setattr(part, "config", config)
    golden = json.loads((GOLDEN / "losses.json").read_text())
    expected = golden["losses"][case]["losses"]
    data = batch(annotation, index)
    if case.startswith("box_fed"):
        # The golden run's formulas gave each stage frequencies of its own; in a training they are equal.
        counts = iter([frequencies(f"roi_heads.box_predictor.{k}.freq_weight_0", 1203) for k in range(3)])
        draw = region_losses.federated_weight
        monkeypatch.setattr(
            region_losses,
            "federated_weight",
            lambda labels, given, **options: draw(labels, next(counts), **options),
        )
        data = replace(data, image_counts=torch.ones(1203))
    model.train()
    model.zero_grad()
    losses = model.losses(data)
    assert {_original(name) for name in losses} >= {name for name, value in expected.items() if value}
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[_original(name)], rel=1e-4, abs=1e-7), name
        if case in golden["losses_float64"]:
            # The original in float64: what is left is what float32 resolves.
            precise = golden["losses_float64"][case][_original(name)]
            assert value.item() == pytest.approx(precise, rel=2e-6), name
    torch.stack(list(losses.values())).sum().backward()
    norms = np.load(GOLDEN / "grads.npz")[f"gradnorm.{case}"]
    check_gradients(model, golden["grad_param_names"], norms)


def _original(name: str) -> str:
    loss, *stage = name.rsplit("_stage", 1)
    return "_stage".join([ORIGINAL_LOSSES.get(loss, loss), *stage])
