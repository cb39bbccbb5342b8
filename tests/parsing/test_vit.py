"""timm's transformers by name, beside timm's own forward pass, and the files their weights come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from partseg.errors import WeightsError
from partseg.parsing.config import DescriptorConfig, PretrainConfig, ViTConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.forward import Transformer, run_blocks
from partseg.parsing.released import timm_names
from partseg.parsing.vit import build_vit, import_vit, load_vit, save_vit, short_side_size

SMALL = ViTConfig(patch_size=8, dim=24, depth=2, heads=3, image_size=32)

# Name, a size at which timm needs to stretch nothing, tokens that are of no patch, the width of descriptors.
FAMILIES = {
    "vit_small_patch8_224": ((224, 224), 1, 384),  # DINO
    "vit_small_patch14_dinov2": ((518, 518), 1, 384),  # layer scale
    "vit_small_patch14_reg4_dinov2": ((518, 518), 5, 384),  # registers, and a class token without a position
    "vit_small_patch16_dinov3": ((64, 96), 5, 384),  # rotations by the place in the image
    "vit_small_patch16_dinov3_qkvb": ((64, 96), 5, 384),  # biases of their own
    "vit_small_plus_patch16_dinov3": ((64, 96), 5, 384),  # gated layers
    "vit_small_patch16_rope_mixed_224": ((64, 96), 1, 384),  # other rotations in each block
    "eva02_tiny_patch14_224": ((224, 224), 1, 192),  # positions and rotations, projections apart
    "deit3_small_patch16_224": ((224, 224), 1, 384),
    "vit_tiny_patch16_224": ((224, 224), 1, 192),
}


def named(name: str) -> Transformer:
    """A model of timm with random weights that matter everywhere, cut down to its last two blocks."""
    torch.manual_seed(0)
    model = build_vit(ViTConfig(name=name))
    model.blocks = model.blocks[-2:]
    if getattr(model, "rope_mixed", False):
        model.rope.freqs.data = model.rope.freqs.data[:, -2:]
        model.rope.depth = 2
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1:  # biases, norms, layer scales: those of an untrained model do nothing
            parameter.data += torch.randn_like(parameter) * (1 if "gamma" in key else 0.1)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_timms_own_forward_pass(name: str) -> None:
    size, special, width = FAMILIES[name]
    model = named(name)
    patch = model.patch_embed.patch_size[0]
    image = torch.randn(1, 3, *size)
    told: dict[str, Tensor] = {}
    attn: Any = model.blocks[-1].attn
    attn.fused_attn = False  # so that timm makes the whole matrix
    for part in ("k_norm", "attn_drop"):
        getattr(attn, part).register_forward_hook(
            lambda _module, _inputs, output, part=part: told.__setitem__(part, output)
        )
    with torch.inference_mode():
        expected = model.forward_features(image)[:, 0]
        seen = run_blocks(model, image, patch)
        token = model.norm(seen.token)
    assert seen.grid == (size[0] // patch, size[1] // patch)
    assert torch.allclose(token, expected, atol=1e-5)
    keys = told["k_norm"][0, :, special:]  # [heads, patches, D / heads]
    assert seen.keys.shape == (1, seen.grid[0] * seen.grid[1], width)
    assert torch.allclose(seen.keys[0], keys.permute(1, 2, 0).flatten(1), atol=1e-5)
    assert torch.allclose(seen.attention[0], told["attn_drop"][0, :, 0, special:], atol=1e-6)
    assert (seen.attention.sum(-1) < 1).all()


def test_rotations_span_the_image_at_any_stride() -> None:
    model = named("vit_small_patch16_dinov3")
    config = DescriptorConfig(stride=8)
    assert Describer(model, config).describe([torch.randn(3, 64, 96)])[0].grid == (7, 11)
    # Of an image without content all that differs between patches is the rotation.
    flat = run_blocks(model, torch.zeros(1, 3, 64, 64), 8).attention.unflatten(2, (7, 7))
    assert flat.std() > 0
    with pytest.raises(WeightsError, match=r"counting patches.*set the stride to the patch size, 16"):
        Describer(named("vit_small_patch16_rope_mixed_224"), config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_smal_patch8_224", r"no model 'vit_smal_patch8_224'; did you mean vit_small_patch8_224\?"),
        ("hf-hub:someone/something", "no model"),
        ("resnet18", "no plain vision transformer"),
        ("vit_tiny_r_s16_p8_224", "no plain vision transformer"),
        ("vit_pwee_patch16_reg1_gap_256", "no class token.*choose one with a class token"),
        ("vit_medium_patch16_gap_240", "no class token"),
    ],
)
def test_models_whose_descriptors_cannot_be_read_are_refused(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        build_vit(ViTConfig(name=name))


def test_blocks_of_another_kind_are_refused() -> None:
    model = build_vit(SMALL)
    model.blocks[-1].attn = torch.nn.Identity()
    with pytest.raises(WeightsError, match="blocks such as timm's Block with Identity"):
        Describer(model, DescriptorConfig(stride=8, saliency_heads=(0,)))


def test_a_name_says_all_sizes() -> None:
    with pytest.raises(ValidationError, match="depth: the sizes of vit_tiny_patch16_224 are timm's"):
        ViTConfig(name="vit_tiny_patch16_224", depth=3)
    with pytest.raises(ValidationError, match="only a transformer given by its sizes"):
        PretrainConfig(vit=ViTConfig(name="vit_tiny_patch16_224"))


@pytest.mark.parametrize(
    ("size", "expected"), [((375, 500), (224, 299)), ((500, 375), (299, 224)), ((100, 1000), (67, 672))]
)
def test_sizes_follow_the_short_side_up_to_a_longest_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert short_side_size(*size, 224, 672) == expected


def test_weights_are_read_with_their_sizes_and_misfits_named(tmp_path: Path) -> None:
    model = build_vit(SMALL)
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


def test_released_weights_are_imported_and_saved(tmp_path: Path) -> None:
    model = build_vit(SMALL)
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


def test_a_named_model_is_imported_and_loads_again_by_its_name(tmp_path: Path) -> None:
    config = ViTConfig(name="vit_tiny_patch16_224")
    model = build_vit(config)
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    save_vit(tmp_path / "saved.safetensors", import_vit(tmp_path / "timm.safetensors", config), config)
    again, known = load_vit(tmp_path / "saved.safetensors")
    assert known == config
    assert torch.equal(again.state_dict()["norm.bias"], model.state_dict()["norm.bias"])
    with pytest.raises(WeightsError, match="do not fit the configuration"):
        import_vit(tmp_path / "timm.safetensors", ViTConfig(name="vit_tiny_patch16_384"))


def test_dinov2_as_released() -> None:
    """The released class token is without its position, which timm has added already."""
    plain = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=3, num_classes=0, init_values=1.0
    )
    model = VisionTransformer(
        img_size=32,
        patch_size=16,
        embed_dim=24,
        depth=1,
        num_heads=3,
        num_classes=0,
        init_values=1.0,
        reg_tokens=4,
        no_embed_class=True,
    )
    released = plain.state_dict() | {"mask_token": torch.zeros(1, 24)}
    assert timm_names(released, plain, Path("f")).keys() == plain.state_dict().keys()
    registers = torch.randn(1, 4, 24)
    model.load_state_dict(timm_names(released | {"register_tokens": registers}, model, Path("f")))
    image = torch.randn(1, 3, 32, 32)
    patches = plain.patch_embed(image)
    tokens = torch.cat([plain.cls_token, patches], dim=1) + plain.pos_embed
    expected = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
    found = model._pos_embed(model.patch_embed(image))
    assert torch.allclose(found, expected, atol=1e-6)


def test_dinov3_as_released() -> None:
    def build(bias: bool) -> Eva:
        return Eva(
            img_size=32,
            patch_size=16,
            embed_dim=24,
            depth=1,
            num_heads=3,
            num_classes=0,
            qkv_bias=bias,
            init_values=1.0,
            use_abs_pos_emb=False,
            num_reg_tokens=4,
            swiglu_mlp=True,
            swiglu_align_to=8,
        )

    released = {
        "cls_token": torch.randn(1, 1, 24),
        "storage_tokens": torch.randn(1, 4, 24),
        "mask_token": torch.randn(1, 24),
        "rope_embed.periods": torch.randn(2),
        "norm.weight": torch.randn(24),
        "norm.bias": torch.randn(24),
        "patch_embed.proj.weight": torch.randn(24, 3, 16, 16),
        "patch_embed.proj.bias": torch.randn(24),
        "blocks.0.ls1.gamma": torch.randn(24),
        "blocks.0.ls2.gamma": torch.randn(24),
        "blocks.0.attn.qkv.weight": torch.randn(72, 24),
        "blocks.0.attn.qkv.bias": torch.arange(72.0),
        "blocks.0.attn.qkv.bias_mask": torch.ones(72),
        "blocks.0.attn.proj.weight": torch.randn(24, 24),
        "blocks.0.attn.proj.bias": torch.randn(24),
        **{f"blocks.0.norm{i}.{kind}": torch.randn(24) for i in (1, 2) for kind in ("weight", "bias")},
        **{f"blocks.0.mlp.{w}.weight": torch.randn(96, 24) for w in ("w1", "w2")},
        **{f"blocks.0.mlp.{w}.bias": torch.randn(96) for w in ("w1", "w2")},
        "blocks.0.mlp.w3.weight": torch.randn(24, 96),
        "blocks.0.mlp.w3.bias": torch.randn(24),
    }
    model = build(bias=True)
    # The final norm is where a classifier would have its own.
    wanted = {k.replace("fc_norm", "norm"): v.shape for k, v in model.state_dict().items()}
    found = timm_names(released, model, Path("f"))
    assert {k: v.shape for k, v in found.items()} == wanted
    assert torch.equal(found["reg_token"], released["storage_tokens"])
    assert found["blocks.0.attn.q_bias"].tolist() == list(range(24))
    assert found["blocks.0.attn.v_bias"].tolist() == list(range(48, 72))
    assert torch.equal(found["blocks.0.mlp.fc1_x.weight"], released["blocks.0.mlp.w2.weight"])
    with pytest.raises(WeightsError, match="choose timm's model whose name has _qkvb"):
        timm_names(released, build(bias=False), Path("f"))
    zero = released | {"blocks.0.attn.qkv.bias": torch.zeros(72)}
    assert "blocks.0.attn.qkv.bias" not in timm_names(zero, build(bias=False), Path("f"))
