"""Networks below the pyramid: ImageNet weights from anybody's file, and activations computed again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm import create_model
from torch import Tensor

from partseg.errors import RecipeError, WeightsError
from partseg.models.backbones import Backbone, TimmBackbone
from partseg.models.checkpoints import load_backbone
from partseg.models.swin import SwinBackbone

STD = (58.395, 57.12, 57.375)
SWIN = "swin_tiny_patch4_window7_224"


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file as its kind of publisher writes it."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": t for name, t in tensors.items()}, "epoch": 3}, path)
    else:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))


# Networks that timm takes apart, flattens, or wraps; the first has all three kinds of tensors that go aside.
@pytest.mark.parametrize("kind", [".pth", ".safetensors", ".pkl"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet"])
def test_a_classifier_of_timm_is_a_backbone(tmp_path: Path, name: str, kind: str) -> None:
    torch.manual_seed(0)
    classifier = create_model(name, pretrained=False)
    file = tmp_path / f"weights{kind}"
    write(file, classifier.state_dict())
    backbone = TimmBackbone(name=name, norm="batch", frozen_stages=0).eval()
    report = load_backbone(backbone, file, pixel_std=STD)
    assert report.complete
    assert len(report.loaded) + len(report.aside) == len(classifier.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        levels = backbone(image)
        expected = classifier.eval().forward_intermediates(image, intermediates_only=True)
    for level, other in zip(levels, expected[-4:], strict=True):
        torch.testing.assert_close(level, other)


def test_a_network_wrapped_whole(tmp_path: Path) -> None:
    classifier = create_model("hiera_tiny_224", pretrained=False)
    write(tmp_path / "a.pth", classifier.state_dict())
    backbone = TimmBackbone(name="hiera_tiny_224", norm="frozen", frozen_stages=1)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert any(".blocks.0." in name for name in frozen)
    assert not any(".blocks.1." in name for name in frozen)
    report = load_backbone(backbone, tmp_path / "a.pth", pixel_std=STD)
    assert set(report.aside) == {name for name in classifier.state_dict() if name.startswith("head.")}
    assert torch.equal(backbone.state_dict()["base.model.pos_embed"], classifier.state_dict()["pos_embed"])


@pytest.mark.parametrize("change", ["deeper", "missing", "other"])
def test_weights_that_do_not_fit_change_nothing(tmp_path: Path, change: str) -> None:
    backbone = TimmBackbone(name="test_resnet", norm="frozen", frozen_stages=0)
    tensors = create_model("test_resnet", pretrained=False).state_dict()
    if change == "deeper":  # a network with more blocks must not pass for this one
        tensors["layer3.7.conv1.weight"] = tensors["layer3.0.conv1.weight"].clone()
        message = r"1 unknown \(first 'layer3.7.conv1.weight'\)"
    elif change == "missing":
        del tensors["layer3.0.conv1.weight"]
        message = r"1 missing \(first 'layer3.0.conv1.weight'\)"
    else:
        tensors = create_model("test_vit", pretrained=False).state_dict()
        message = "looks like a vision transformer"
    write(tmp_path / "a.safetensors", tensors)
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(WeightsError, match=message):
        load_backbone(backbone, tmp_path / "a.safetensors", pixel_std=STD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": print}}, tmp_path / "weights.pth")
    backbone = TimmBackbone(name="test_resnet", norm="frozen", frozen_stages=0)
    with pytest.raises(WeightsError, match=r"asks for '\w+\.print', which is not data"):
        load_backbone(backbone, tmp_path / "weights.pth", pixel_std=STD)


def step(backbone: Backbone) -> tuple[dict[str, Tensor], int]:
    """Levels, gradients, buffers and the state of the generator after a training step; and the bytes kept."""
    backbone.train()
    torch.manual_seed(1)
    images = torch.randn(2, 3, 96, 64)
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        levels = backbone(images)
    torch.stack([(level * level.detach().cos()).sum() for level in levels]).sum().backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    buffers = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
    outputs = {f"level {row}": level.detach() for row, level in enumerate(levels)}
    return {**gradients, **buffers, **outputs, "generator": torch.get_rng_state()}, kept


def build(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    if name.startswith("swin_"):
        return SwinBackbone(name=name, **options)  # type: ignore[arg-type]
    return TimmBackbone(name=name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_byobnet", {"norm": "batch", "frozen_stages": 0}),
        ("resnet18", {"norm": "batch", "frozen_stages": 2, "drop_path": 0.5}),
        ("test_convnext", {"norm": "frozen", "frozen_stages": 1, "drop_path": 0.5}),
        (SWIN, {"frozen_stages": 1, "drop_path": 0.5}),
    ],
)
def test_activations_computed_again_change_no_bit(name: str, options: dict[str, object]) -> None:
    plain = build(name, **options)
    frugal = copy.deepcopy(plain)
    frugal.recompute_activations(True)
    copied = copy.deepcopy(frugal)  # as a running mean of the weights is
    (wanted, bytes_plain), (found, bytes_frugal) = step(plain), step(frugal)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
    assert bytes_frugal < 0.8 * bytes_plain
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in step(copied)[0].items())
    frugal.recompute_activations(False)
    plain.zero_grad()
    frugal.zero_grad()
    (wanted, bytes_plain), (found, bytes_frugal) = step(plain), step(frugal)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert bytes_frugal == bytes_plain


def test_a_network_that_cannot_compute_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = TimmBackbone(name="test_resnet", norm="frozen", frozen_stages=0)

    def refuse(enable: bool) -> None:
        assert not enable, "gradient checkpointing not supported"

    monkeypatch.setattr(backbone.base, "set_grad_checkpointing", refuse)
    with pytest.raises(RecipeError, match="'test_resnet' cannot compute activations again"):
        backbone.recompute_activations(True)


def test_a_backbone_has_to_be_one() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Backbone()  # type: ignore[abstract]
