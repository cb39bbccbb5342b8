from __future__ import annotations

import math

import pytest
import torch

from partseg.models import losses


def bce(logit: float, target: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -(target * math.log(probability) + (1 - target) * math.log(1 - probability))


def test_classification_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 0.5, 0.0], [-3.0, 1.0, 0.0]])
    labels = torch.tensor([0, 2, 7])  # 2 = background of 2 classes; more than C is background too
    by_hand = bce(2, 1) + bce(-1, 0) + 2 * bce(0.5, 0) + bce(-3, 0) + bce(1, 0)
    assert losses.classification(logits, labels).item() == pytest.approx(by_hand / 3, rel=1e-5)
    weighted = losses.classification(logits, labels, torch.tensor([1.0, 0.0])).item()
    assert weighted == pytest.approx((bce(2, 1) + bce(0.5, 0) + bce(-3, 0)) / 3, rel=1e-5)
    assert losses.classification(torch.zeros(0, 3), labels[:0]).item() == 0


def test_box_regression_by_hand() -> None:
    region = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    target = torch.tensor([[1.0, 0.0, 11.0, 40.0]])
    # dx = 10 * 1 / 10, dy = 10 * 10 / 20, dw = 0, dh = 5 * log 2
    expected = 1 + 5 + 5 * math.log(2)
    loss = losses.box_regression(torch.zeros(1, 4), region, target, (10, 10, 5, 5), 4)
    assert loss.item() == pytest.approx(expected / 4, rel=1e-5)


def test_mask_by_hand() -> None:
    logits = torch.tensor([[[1.0, -2.0]]])
    assert losses.mask(logits, torch.tensor([[[1.0, 1.0]]])).item() == pytest.approx(
        (bce(1, 1) + bce(-2, 1)) / 2, rel=1e-5
    )
    nothing = torch.zeros(0, 2, 2, requires_grad=True)
    losses.mask(nothing, torch.zeros(0, 2, 2)).backward()
    assert nothing.grad is not None


def test_image_labels_by_hand() -> None:
    # The largest proposal is the last one, which the published rule never takes.
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 4], [0, 0, 9, 9]])
    logits = torch.tensor([[9.0, 9.0, 0.0], [1.0, -1.0, 0.0], [0.3, 0.7, 0.0]])
    one = bce(1, 1) + bce(-1, 0) + bce(0, 0)
    two = bce(1, 0) + bce(-1, 1) + bce(0, 0)
    arguments = ([logits, logits], [boxes, boxes], [torch.tensor([0, 1]), torch.tensor([0])])
    loss = losses.image_labels(*arguments, skip_last=True).item()
    assert loss == pytest.approx(((one + two) / 2 + one) / 2, rel=1e-5)
    last = bce(0.3, 1) + bce(0.7, 0) + bce(0, 0)
    single = losses.image_labels([logits], [boxes], [torch.tensor([0])], skip_last=False).item()
    assert single == pytest.approx(last, rel=1e-5)
    only = losses.image_labels([logits[:1]], [boxes[:1]], [torch.tensor([1])], skip_last=True).item()
    assert only == pytest.approx(bce(9, 0) + bce(9, 1) + bce(0, 0), rel=1e-5)


def test_the_highest_scoring_proposal_is_taught_and_no_other() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 1.5, 0.0]], requires_grad=True)
    loss = losses.highest_scores([logits, logits[:0]], [torch.tensor([0, 0]), torch.tensor([1])])
    # Both labels choose the first proposal; the second image has no proposal and adds nothing.
    assert loss.item() == pytest.approx((bce(2, 1) + bce(-1, 0) + bce(0, 0)) / 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_federated_rule() -> None:
    counts = torch.tensor([100.0, 0, 50, 10, 5, 0])
    labels = torch.tensor([1, 6, 6, 3])  # 6 is background
    for seed in range(20):
        torch.manual_seed(seed)
        weight = losses.federated_weight(labels, counts, classes=5, power=0.5)
        assert weight.shape == (6,)
        assert weight[[1, 3]].tolist() == [1, 1]  # classes of the batch always count
        assert weight[5] == 0  # no image, and not in the batch: never drawn
        assert weight.sum() == 4  # background is the fifth
    torch.manual_seed(0)
    assert losses.federated_weight(labels, counts, classes=3, power=0.5).tolist() == [0, 1, 0, 1, 0, 0]
    assert losses.federated_weight(labels, counts, classes=50, power=0.5).tolist() == [1, 1, 1, 1, 1, 0]


def test_federated_draw_follows_the_counts() -> None:
    counts = torch.tensor([1.0, 100.0])
    drawn = torch.zeros(2)
    torch.manual_seed(0)
    for _ in range(600):
        drawn += losses.federated_weight(torch.tensor([2]), counts, classes=2, power=0.5)
    assert drawn[1] / drawn.sum() == pytest.approx(10 / 11, abs=0.04)
