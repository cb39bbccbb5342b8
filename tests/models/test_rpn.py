from __future__ import annotations

import torch

from partseg.models.config import RpnConfig
from partseg.models.pixels import pixel_table
from partseg.models.rpn import RegionProposalNetwork

STRIDES = (4, 8, 16, 32, 64)
SIZES = ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))


def test_the_head_at_some_anchors_is_the_head_everywhere() -> None:
    """Every anchor of two images: value, and the gradient of features and weights."""
    torch.manual_seed(0)
    network = RegionProposalNetwork(channels=6, strides=STRIDES, config=RpnConfig()).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    features = [torch.randn(2, 6, *size, dtype=torch.float64).requires_grad_() for size in SIZES]
    anchors, logits, deltas = network(features)
    total = sum(map(len, anchors))
    chosen = torch.randperm(2 * total)
    few = network.rpn_head.at(pixel_table(features), network._place(features, chosen))
    everywhere = torch.cat(logits, 1).flatten()[chosen], torch.cat(deltas, 1).flatten(0, 1)[chosen]
    leaves = [*features, *network.parameters()]
    gradients = []
    for some_logits, some_deltas in (few, everywhere):
        weight = torch.arange(len(chosen), dtype=torch.float64).sin()
        loss = (some_logits * weight).sum() + (some_deltas.square() * weight[:, None]).sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for one, two in zip(few, everywhere, strict=True):
        torch.testing.assert_close(one, two)
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
