"""Reading features of images: grids, saliency, and what a describer does not take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partseg.errors import WeightsError
from partseg.parsing.config import ViTConfig
from partseg.parsing.descriptors import Describer, DescriptorConfig, min_max
from partseg.parsing.forward import Transformer, embed_patches, resize_positions
from partseg.parsing.vit import build_vit, normalise

SMALL = ViTConfig(patch_size=8, dim=24, depth=2, heads=3, image_size=32)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return build_vit(SMALL)


def config(**changes: object) -> DescriptorConfig:
    return DescriptorConfig(**{"stride": 8, "saliency_heads": (0, 1, 2), **changes})  # type: ignore[arg-type]


def test_the_default_is_the_published_model() -> None:
    sizes = ViTConfig()
    assert (sizes.patch_size, sizes.dim, sizes.depth, sizes.heads) == (8, 384, 12, 6)
    read = DescriptorConfig()
    assert (read.stride, read.short_side, read.saliency_heads) == (4, 224, (0, 2, 4, 5))


def test_one_descriptor_per_patch_and_finer_grids_at_smaller_strides(model: Transformer) -> None:
    images = torch.randn(2, 3, 32, 48)
    for stride, grid in ((8, (4, 6)), (4, (7, 11))):
        features = Describer(model, config(stride=stride))(images)
        assert len(features) == 2
        assert features[0].grid == grid
        assert features[0].descriptors.shape == (grid[0] * grid[1], 24)
        assert features[0].token.shape == (24,)


def test_an_image_has_the_same_features_in_a_batch(model: Transformer) -> None:
    images = torch.randn(3, 3, 32, 32)
    describe = Describer(model, config())
    together, alone = describe(images)[1], describe(images[1:2])[0]
    assert torch.allclose(together.descriptors, alone.descriptors, atol=1e-5)
    assert torch.allclose(together.saliency, alone.saliency, atol=1e-5)


def test_images_of_any_sizes_are_described_to_the_last_digit_as_each_alone(model: Transformer) -> None:
    describer = Describer(model, config(stride=4))
    images = [torch.randn(3, *size) for size in ((32, 48), (40, 32), (32, 48), (32, 48))]
    for image, features in zip(images, describer.describe(images), strict=True):
        alone = describer.describe([image])[0]
        assert features.grid == alone.grid
        assert torch.equal(features.token, alone.token)
        assert torch.equal(features.descriptors, alone.descriptors)
        assert torch.equal(features.saliency, alone.saliency)
    assert describer.describe([]) == []


def test_features_do_not_hold_on_to_the_rest_of_the_forward_pass(model: Transformer) -> None:
    features = Describer(model, config(stride=4)).describe([torch.randn(3, 32, 48)])[0]
    for tensor in (features.token, features.descriptors, features.saliency):
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


def test_saliency_goes_from_zero_to_one(model: Transformer) -> None:
    describe = Describer(model, config(saliency_threshold=0.5))
    features = describe(torch.randn(1, 3, 32, 32))[0]
    assert features.saliency.min() == 0
    assert features.saliency.max() == 1
    assert describe.foreground(features).shape == (4, 4)
    assert 0 < describe.foreground(features).sum() < 16
    assert min_max(torch.ones(3)).tolist() == [0, 0, 0]


def test_heads_and_strides_that_do_not_exist_are_refused(model: Transformer) -> None:
    with pytest.raises(WeightsError, match="choose from 0 to 2"):
        Describer(model, config(saliency_heads=(3,)))
    with pytest.raises(WeightsError, match="cannot be 3 pixels apart; set the stride to one of 1, 2, 4, 8"):
        Describer(model, config(stride=3))
    with_convolutions = build_vit(ViTConfig(dim=24, depth=1, heads=3, image_size=32, stem=(8, 16)))
    with pytest.raises(WeightsError, match="one of 4, 8"):
        Describer(with_convolutions, config(stride=2))
    assert Describer(with_convolutions, config(stride=4))(torch.randn(1, 3, 32, 32))[0].grid == (7, 7)


def test_positions_keep_their_own_grid_and_stretch_smoothly(model: Transformer) -> None:
    ramp = torch.arange(16.0).view(1, 16, 1) // 4
    positions = torch.cat([torch.zeros(1, 1, 1), ramp], dim=1)
    assert torch.equal(resize_positions(positions, (4, 4), (4, 4), 1), positions)
    rows = resize_positions(positions, (7, 4), (4, 4), 1)[0, 1:].view(7, 4)
    assert (rows.diff(dim=0) > 0).all()
    assert torch.allclose(rows[:, 0], rows[:, 3], atol=1e-6)
    tokens, grid = embed_patches(model, torch.zeros(1, 3, 40, 32), 8)
    assert (tokens.shape[1], grid) == (21, (5, 4))


def test_pixels_are_normalised_as_the_model_was_trained(model: Transformer) -> None:
    image = np.full((2, 3, 3), 255, np.uint8)
    assert torch.equal(Describer(model, config()).normalise(image), normalise(image))
    assert normalise(image)[:, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    vars(model)["pretrained_cfg"] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert Describer(model, config()).normalise(image).unique().tolist() == [1.0]
