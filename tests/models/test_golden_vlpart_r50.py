"""The original VLPart and this one agree: same weights, same images, same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from partseg.models.config import load_config
from partseg.models.structures import Annotation, Batch, Target
from partseg.models.vlpart import VLPart, build_model
from tests.golden import formula

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/vlpart_r50"
GAINS = {"rpn_head.anchor_deltas.weight": 0.3, "bbox_pred.2.weight": 0.5}
SIZES = ((224, 288), (256, 256))
# Our names of the losses, and the original's.
NAMES = {"loss_parsed_part": "loss_ppart", "loss_image": "loss_noun"}


@pytest.fixture(scope="module")
def model() -> VLPart:
    config = load_config(ROOT / "configs/models/vlpart_r50.yaml")
    # The golden run left the weight of image labels at the original's default.
    losses = config.losses.model_copy(update={"image": 0.01})
    model = build_model(config.model_copy(update={"losses": losses}))
    state = {}
    for name, value in model.state_dict().items():
        gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
        state[name] = torch.from_numpy(formula.tensor(name, tuple(value.shape), gain=gain))
    model.load_state_dict(state)
    return model


def text(index: int) -> Tensor:
    rows = (1203, 531, 93, 40)[index]
    return torch.from_numpy(formula.tensor(f"classifier_{index}", (rows, 1024)))


def picture(height: int, width: int, seed: int) -> Tensor:
    return torch.from_numpy(formula.image(height, width, seed)).permute(2, 0, 1)


def check(name: str, found: Tensor, golden: dict[str, np.ndarray]) -> None:
    if name in golden:
        expected, values = golden[name], found.numpy()
    else:
        assert tuple(golden[f"{name}.shape"]) == tuple(found.shape)
        expected = golden[f"{name}.vals"]
        values = found.numpy().reshape(-1)[formula.sample_index(found.numel(), len(expected))]
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.std())), err_msg=name
    )


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
    masks = found.masks()
    assert len(found) == len(golden["final.scores"])
    # Two of the scores differ by less than float32 resolves: compare as sets.
    distance = np.abs(found.boxes.numpy()[:, None] - golden["final.boxes"][None]).max(2)
    distance[found.labels.numpy()[:, None] != golden["final.classes"][None]] = np.inf
    order = distance.argmin(1).tolist()
    assert len(set(order)) == len(order)
    np.testing.assert_allclose(found.boxes.numpy(), golden["final.boxes"][order], atol=1e-2)
    np.testing.assert_allclose(found.scores.numpy(), golden["final.scores"][order], atol=1e-4)
    np.testing.assert_allclose(masks.sum((1, 2)), golden["final.mask_area"][order], atol=3)
    first = np.unpackbits(golden["final.mask0_packbits"])[: 307 * 384].reshape(307, 384)
    assert (masks[order.index(0)] != first).mean() < 1e-3


@pytest.mark.parametrize(
    ("case", "annotation", "index"),
    [
        ("box_fed_arange", "part", 0),
        pytest.param("part_nofed_arange", "part", 2, marks=pytest.mark.slow),
        pytest.param("ppart_arange", "parsed_part", 2, marks=pytest.mark.slow),
        ("image_arange", "image", 2),
    ],
)
def test_losses_and_gradients(
    model: VLPart, case: str, annotation: Annotation, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The golden run took the first instead of random samples, and the likeliest instead of random classes.
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
    monkeypatch.setattr(
        torch,
        "multinomial",
        lambda chance, count, replacement: torch.sort(chance, descending=True, stable=True)[1][:count],
    )
    golden = json.loads((GOLDEN / "losses.json").read_text())
    classes = text(index)
    counts = None
    if case == "box_fed_arange":
        weight = formula.tensor("roi_heads.box_predictor.freq_weight_0", (1203,)).astype(np.float64)
        counts = torch.from_numpy(weight**2)  # the original stores the square roots
    batch = Batch(
        images=[picture(*size, 2 + number) for number, size in enumerate(SIZES)],
        targets=[truth(*size, len(classes), number, annotation) for number, size in enumerate(SIZES)],
        annotation=annotation,
        text=classes,
        image_counts=counts,
    )
    model.train()
    model.zero_grad()
    losses = model.losses(batch)
    for name, value in losses.items():
        assert value.item() == pytest.approx(
            golden["losses"][case]["losses"][NAMES.get(name, name)], rel=1e-4, abs=1e-7
        ), name
    torch.stack(list(losses.values())).sum().backward()
    expected = np.load(GOLDEN / "grads.npz")[f"gradnorm.{case}"]
    parameters = dict(model.named_parameters())
    trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert trainable == set(golden["grad_param_names"])
    for name, norm in zip(golden["grad_param_names"], expected, strict=True):
        gradient = parameters[name].grad
        assert (gradient is None) == (norm < 0), name
        if gradient is not None:
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), name


def truth(height: int, width: int, classes: int, number: int, annotation: Annotation) -> Target:
    """Four ellipses (or two labels) per image, from integers."""
    if annotation == "image":
        labels = torch.from_numpy(formula.integers(f"a:pos:{number}", 2) % classes)
        return Target(boxes=torch.zeros(0, 4), labels=labels)
    boxes, names, masks = [], [], []
    y, x = np.mgrid[0:height, 0:width]
    for row in formula.integers(f"a:gt:{number}", 20).reshape(4, 5):
        w, h = 24 + row[0] % (width // 2), 24 + row[1] % (height // 2)
        x0, y0 = row[2] % (width - w), row[3] % (height - h)
        boxes.append([x0, y0, x0 + w, y0 + h])
        names.append(row[4] % classes)
        inside = ((2 * x + 1 - 2 * x0 - w) * h) ** 2 + ((2 * y + 1 - 2 * y0 - h) * w) ** 2 <= (w * h) ** 2
        masks.append(inside)
    return Target(
        boxes=torch.tensor(np.array(boxes), dtype=torch.float32),
        labels=torch.tensor(np.array(names)),
        masks=torch.from_numpy(np.array(masks)).to(torch.uint8),
    )
