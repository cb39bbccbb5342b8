from __future__ import annotations

import pytest
import timm
import torch
from timm.utils.model import freeze_batch_norm_2d

from partseg.models.frozen_norm import FoldedConv2d, FrozenBatchNormFolded, fold_frozen_norms


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("resnet18", 20),
        ("test_resnet", 14),  # of 15: the last convolution of its deep stem hides in another module
        ("mobilenetv3_small_050", 0),  # norm and activation are one: left alone
    ],
)
def test_folded_networks_compute_and_learn_the_same(name: str, folded: int) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.uniform_(tensor, -0.3, 0.3)
    plain = freeze_batch_norm_2d(network)
    state = plain.state_dict()
    other = freeze_batch_norm_2d(timm.create_model(name, features_only=True))
    fold_frozen_norms(other)
    # What is loaded after folding counts, under the names of the plain network.
    other.load_state_dict(state)
    assert list(other.state_dict()) == list(state)
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert sum(isinstance(module, FrozenBatchNormFolded) for module in other.modules()) == folded
    assert sum(isinstance(module, FoldedConv2d) for module in other.modules()) == folded
    image = torch.randn(2, 3, 64, 64)
    expected, found = plain(image), other(image)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    expected[-1].square().mean().backward()
    found[-1].square().mean().backward()
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-5)
