"""What the golden runs of the original VLPart have in common: weights, classes, pictures and ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from partseg.models.config import load_config
from partseg.models.structures import Annotation, Batch, Detections, Target
from partseg.models.vlpart import VLPart, build_model
from tests.golden import formula

ROOT = Path(__file__).parents[2]
GAINS = {"rpn_head.anchor_deltas.weight": 0.3, "bbox_pred.2.weight": 0.5}
# The original's names of losses, by ours, where they differ.
ORIGINAL_LOSSES = {"loss_parsed_part": "loss_ppart", "loss_image": "loss_noun"}
SIZES = ((224, 288), (256, 256))


def formula_model(config: str) -> VLPart:
    """A model of ``configs/models`` with weights from the formulas."""
    settings = load_config(ROOT / "configs/models" / config)
    # The golden runs left the weight of image labels at the original's default.
    losses = settings.losses.model_copy(update={"image": 0.01})
    model = build_model(settings.model_copy(update={"losses": losses}))
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
        values = found.contiguous().numpy().reshape(-1)[formula.sample_index(found.numel(), len(expected))]
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.std())), err_msg=name
    )


def check_detections(found: Detections, golden: dict[str, np.ndarray]) -> None:
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


def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden runs took the first, not random samples, and the likeliest, not random classes."""
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
    monkeypatch.setattr(
        torch,
        "multinomial",
        lambda chance, count, replacement: torch.sort(chance, descending=True, stable=True)[1][:count],
    )


def frequencies(name: str, classes: int) -> Tensor:
    """Image counts of a federated dataset, from the original's tensor, which holds their square roots."""
    return torch.from_numpy(formula.tensor(name, (classes,)).astype(np.float64) ** 2)


def batch(annotation: Annotation, index: int, image_counts: Tensor | None = None) -> Batch:
    """Two pictures."""
    classes = text(index)
    return Batch(
        images=[picture(*size, 2 + number) for number, size in enumerate(SIZES)],
        targets=[truth(*size, len(classes), number, annotation) for number, size in enumerate(SIZES)],
        annotation=annotation,
        text=classes,
        image_counts=image_counts,
    )


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


def check_gradients(model: VLPart, names: list[str], norms: np.ndarray) -> None:
    parameters = dict(model.named_parameters())
    trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert trainable == set(names)
    for name, norm in zip(names, norms, strict=True):
        gradient = parameters[name].grad
        assert (gradient is None) == (norm < 0), name
        if gradient is not None:
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), name
