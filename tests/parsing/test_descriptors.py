from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from partseg.errors import WeightsError
from partseg.parsing.config import ViTConfig
from partseg.parsing.descriptors import (
    Describer,
    DescriptorConfig,
    embed_patches,
    min_max,
    resize_positions,
)
from partseg.parsing.transfer import correspondences, nearest
from partseg.parsing.vit import build_vit, import_vit, load_vit, normalise, save_vit, short_side_size

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
SMALL = ViTConfig(patch_size=8, dim=24, depth=2, heads=3, image_size=32)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_vit(SMALL)


def config(**changes: object) -> DescriptorConfig:
    return DescriptorConfig(**{"stride": 8, "saliency_heads": (0, 1, 2), **changes})  # type: ignore[arg-type]


def test_the_default_is_the_published_model() -> None:
    sizes = ViTConfig()
    assert (sizes.patch_size, sizes.dim, sizes.depth, sizes.heads) == (8, 384, 12, 6)
    read = DescriptorConfig()
    assert (read.stride, read.short_side, read.saliency_heads) == (4, 224, (0, 2, 4, 5))


def test_one_descriptor_per_patch_and_finer_grids_at_smaller_strides(model: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 32, 48)
    for stride, grid in ((8, (4, 6)), (4, (7, 11))):
        features = Describer(model, config(stride=stride))(images)
        assert len(features) == 2
        assert features[0].grid == grid
        assert features[0].descriptors.shape == (grid[0] * grid[1], 24)
        assert features[0].token.shape == (24,)


def test_at_its_own_size_the_model_is_timms_own(model: torch.nn.Module) -> None:
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        features = Describer(model, config())(images)[0]
        expected = model.forward_features(images)[0, 0]  # timm ends with a norm
        assert torch.allclose(model.norm(features.token), expected, atol=1e-5)


def test_an_image_has_the_same_features_alone_and_in_company(model: torch.nn.Module) -> None:
    images = torch.randn(3, 3, 32, 32)
    describe = Describer(model, config())
    together, alone = describe(images)[1], describe(images[1:2])[0]
    assert torch.allclose(together.descriptors, alone.descriptors, atol=1e-5)
    assert torch.allclose(together.saliency, alone.saliency, atol=1e-5)


def test_saliency_goes_from_zero_to_one(model: torch.nn.Module) -> None:
    describe = Describer(model, config(saliency_threshold=0.5))
    features = describe(torch.randn(1, 3, 32, 32))[0]
    assert features.saliency.min() == 0
    assert features.saliency.max() == 1
    assert describe.foreground(features).shape == (4, 4)
    assert 0 < describe.foreground(features).sum() < 16
    assert min_max(torch.ones(3)).tolist() == [0, 0, 0]


def test_heads_that_do_not_exist_are_refused(model: torch.nn.Module) -> None:
    with pytest.raises(WeightsError, match="choose from 0 to 2"):
        Describer(model, config(saliency_heads=(3,)))


def test_positions_keep_their_own_grid_and_stretch_smoothly(model: torch.nn.Module) -> None:
    ramp = torch.arange(16.0).view(1, 16, 1) // 4
    positions = torch.cat([torch.zeros(1, 1, 1), ramp], dim=1)
    assert torch.equal(resize_positions(positions, (4, 4)), positions)
    rows = resize_positions(positions, (7, 4))[0, 1:].view(7, 4)
    assert (rows.diff(dim=0) > 0).all()
    assert torch.allclose(rows[:, 0], rows[:, 3], atol=1e-6)
    tokens, grid = embed_patches(model, torch.zeros(1, 3, 40, 32), 8)
    assert (tokens.shape[1], grid) == (21, (5, 4))


@pytest.mark.parametrize(
    ("size", "expected"), [((375, 500), (224, 299)), ((500, 375), (299, 224)), ((100, 1000), (67, 672))]
)
def test_sizes_follow_the_short_side_up_to_a_longest_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert short_side_size(*size, 224, 672) == expected


def test_weights_are_read_with_their_sizes_and_misfits_named(tmp_path: Path, model: torch.nn.Module) -> None:
    weights = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match="not complete"):
        load_vit(weights)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    weights.with_suffix(".json").write_text(json.dumps({"vit": SMALL.model_dump()}))
    again, sizes = load_vit(weights)
    assert sizes == SMALL
    assert torch.equal(again.pos_embed, model.pos_embed)
    weights.with_suffix(".json").write_text(json.dumps({"vit": {**SMALL.model_dump(), "depth": 3}}))
    with pytest.raises(WeightsError, match=r"the first is blocks\.2"):
        load_vit(weights)


def test_released_weights_are_imported_and_saved(tmp_path: Path, model: torch.nn.Module) -> None:
    tensors = dict(model.state_dict())
    torch.save({**tensors, "head.weight": torch.zeros(2, 24)}, tmp_path / "dino.pth")
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "timm.safetensors")
    for name in ("dino.pth", "timm.safetensors"):
        imported = import_vit(tmp_path / name, SMALL)
        save_vit(tmp_path / "saved.safetensors", imported, SMALL, source=name)
        again, sizes = load_vit(tmp_path / "saved.safetensors")
        assert sizes == SMALL
        assert all(torch.equal(again.state_dict()[k], v) for k, v in tensors.items())
    torch.save({"teacher": tensors}, tmp_path / "full.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        import_vit(tmp_path / "full.pth", SMALL)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden numbers are not part of the repository")
def test_descriptors_and_correspondences_equal_the_published_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GOLDEN))
    import formula  # type: ignore[import-not-found]

    folder = GOLDEN / "parser_mixer" / "a"
    golden, images = np.load(folder / "golden.npz"), np.load(folder / "images.npz")
    model = build_vit(ViTConfig())
    gains = {"pos_embed": 800.0, "cls_token": 20.0}
    weights = {
        name: formula.formula_tensor(f"model.{name}", tuple(value.shape), seed="a").astype(np.float64)
        * gains.get(name, 1.0)
        for name, value in model.state_dict().items()
    }
    model.load_state_dict({name: torch.tensor(value.astype(np.float32)) for name, value in weights.items()})
    describe = Describer(model, DescriptorConfig())
    case = json.loads((folder / "meta.json").read_text())[0]
    query = describe(normalise(images[f"query_image.{case['query']}"])[None])[0]
    base = describe(normalise(images[f"base_image_lanczos.{case['base_filename']}"])[None])[0]
    assert np.abs(query.token.numpy() - golden["q0.query_token"]).max() < 1e-4
    assert np.abs(base.saliency.numpy() - golden["q0.saliency1"][0]).max() < 1e-5
    places = formula.sample_idx(base.descriptors.numel(), 256)
    assert np.abs(base.descriptors.flatten().numpy()[places] - golden["q0.descriptors1.vals"]).max() < 1e-4
    assert (correspondences(base.descriptors, query.descriptors)[0].numpy() == golden["q0.nn_2"]).all()
    names = sorted(name for name in golden.files if name.startswith("base_token"))
    tokens = torch.tensor(np.stack([golden[name] for name in names]))
    assert names[nearest(query.token, tokens)[0]].endswith(case["base_filename"])
    sys.modules.pop("formula", None)
