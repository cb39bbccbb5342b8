from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from partseg.errors import RecipeError, WeightsError
from partseg.models.backbones import TimmBackbone
from partseg.models.checkpoints import load_backbone
from partseg.models.config import ModelConfig, load_config
from partseg.models.files import ModelCard, Vocabulary, load_model, read_card, save_model
from partseg.models.images import resized_shape
from partseg.models.structures import Annotation, Target
from partseg.models.swin import SwinBackbone
from partseg.models.vlpart import VLPart, build_model
from tests.models.conftest import batch

SMALL = ModelConfig.model_validate(
    {
        "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": 0},
        "pyramid_channels": 16,
        "text_dim": 32,
        "rpn": {"anchor_sizes": [12, 24, 48, 96, 128], "samples_per_image": 32, "proposals_train": 40},
        "roi": {
            "samples_per_image": 16,
            "box_pool": 4,
            "box_channels": 32,
            "mask_pool": 4,
            "mask_convs": 1,
            "mask_channels": 16,
        },
        "inference": {"short_side": 128, "long_side": 192},
    }
)
PART_LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}


@pytest.fixture(scope="module")
def model(tiny: ModelConfig) -> VLPart:
    torch.manual_seed(0)
    return build_model(tiny)


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        ("box", PART_LOSSES),
        ("image", {"loss_image", "loss_rpn_cls"}),
        ("parsed_part", {"loss_parsed_part", "loss_rpn_cls"}),
    ],
)
def test_losses_by_annotation(model: VLPart, annotation: Annotation, names: set[str]) -> None:
    torch.manual_seed(0)
    model.train()
    model.zero_grad()
    losses = model.losses(batch(annotation))
    assert set(losses) == names
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is None or torch.isfinite(g).all() for g in gradients.values())
    trained = {name.split(".")[1] for name, g in gradients.items() if g is not None}
    assert ("mask_head" in trained) == (annotation == "box")
    head = gradients["proposal_generator.rpn_head.conv.weight"]
    # Without boxes to trust, the proposal network gets gradients of exactly zero.
    assert head is not None
    assert bool(head.any()) == (annotation == "box")


def test_boxes_without_masks_train_no_masks(model: VLPart) -> None:
    model.train()
    assert set(model.losses(batch(masks=False))) == PART_LOSSES - {"loss_mask"}


def test_federated_batches_need_only_counts(model: VLPart) -> None:
    model.train()
    losses = model.losses(replace(batch(), image_counts=torch.tensor([5.0, 1.0, 0.0])))
    assert losses["loss_cls"].isfinite()


def test_an_image_without_annotations_is_background(model: VLPart) -> None:
    model.train()
    data = batch()
    empty = [
        Target(boxes=t.boxes[:0], labels=t.labels[:0], masks=t.masks[:0] if t.masks is not None else None)
        for t in data.targets
    ]
    losses = model.losses(replace(data, targets=empty))
    assert losses["loss_mask"] == 0
    assert losses["loss_box_reg"] == 0
    assert losses["loss_rpn_loc"] == 0
    torch.stack(list(losses.values())).sum().backward()


def test_bfloat16_backbone(model: VLPart) -> None:
    torch.manual_seed(0)
    model.train()
    model.zero_grad()
    losses = model.losses(batch(), amp=torch.bfloat16)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()


def test_two_images_can_be_learnt() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL).train()
    data = batch(dim=SMALL.text_dim)
    optimiser = torch.optim.AdamW(model.parameters())
    for step in range(100):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 10) * (1.0 if step < 70 else 0.2)
        optimiser.zero_grad()
        torch.stack(list(model.losses(data).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    model.eval()
    results = model.detect(data.images, data.text)
    for image, target, found in zip(data.images, data.targets, results, strict=True):
        assert found.labels[0] == 1
        assert found.scores[0] > 0.8
        assert (found.height, found.width) == tuple(image.shape[1:])
        assert target.masks is not None
        truth, masks = target.masks[:1].bool().numpy(), found.masks()
        overlap = (truth & masks).sum((1, 2)) / (truth | masks).sum((1, 2))
        assert overlap[(found.labels == 1).numpy() & (found.scores > 0.5).numpy()].max() > 0.5
    # An image twice as large is looked at in the same size, and answered in its own pixels.
    (large,) = model.detect([data.images[0].repeat_interleave(2, 1).repeat_interleave(2, 2)], data.text)
    (small,) = model.detect(data.images[:1], data.text)
    torch.testing.assert_close(large.boxes[0], 2 * small.boxes[0], atol=6, rtol=0.1)
    (proposed,) = model.propose(data.images[:1], data.text, limit=20)
    assert proposed.proposals.shape == proposed.refined.shape
    assert len(proposed.objectness) <= 20
    assert proposed.class_scores.shape == (len(proposed.objectness), 3)
    assert (proposed.objectness.diff() <= 0).all()
    assert (proposed.refined - data.targets[0].boxes[0]).abs().amax(1).min() < 8


def test_any_vocabulary_and_none(model: VLPart) -> None:
    model.eval()
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    options = model.config.inference.model_copy(update={"score_threshold": 1.0})
    (nothing,) = model.detect([image], torch.randn(7, 128), options)
    assert len(nothing) == 0
    assert nothing.masks().shape == (0, 64, 64)


def test_classification_does_not_depend_on_the_length_of_texts(model: VLPart) -> None:
    regions, text = torch.randn(4, model.config.roi.box_channels), torch.randn(3, 128)
    classify = model.roi_heads.box_predictor.cls_score
    torch.testing.assert_close(classify(regions, text), classify(regions, 7 * text))
    assert classify(regions, text)[:, -1].abs().max() == 0
    assert classify(regions, text).abs().max() <= 50 + 1e-3


def test_a_model_survives_the_disk(tiny: ModelConfig, model: VLPart, tmp_path: Path) -> None:
    card = ModelCard(
        config=tiny,
        vocabulary=Vocabulary(names=("dog",), encoder="offline:128", template="a {name}"),
        iterations=3,
    )
    save_model(tmp_path, model, card)
    assert read_card(tmp_path) == card
    again = load_model(tmp_path)
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    first = (tmp_path / "model.safetensors").read_bytes()
    save_model(tmp_path, again, card)
    assert (tmp_path / "model.safetensors").read_bytes() == first
    (tmp_path / "model.safetensors").write_bytes(first[:1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_model(tmp_path)
    with pytest.raises(WeightsError, match="no model here"):
        read_card(tmp_path / "elsewhere")


CASCADE = {"cascade": [{"positive_iou": iou, "box_weights": [20, 20, 10, 10]} for iou in (0.6, 0.7)]}


@pytest.mark.parametrize("rule", ["sampled", "max_score"])
def test_a_cascade_learns_and_detects_in_stages(rule: str) -> None:
    torch.manual_seed(0)
    settings = SMALL.model_dump()
    settings["roi"] |= CASCADE
    settings["losses"]["parsed_part_rule"] = rule
    model = build_model(ModelConfig.model_validate(settings))
    stages = {"_stage0", "_stage1", "_stage2"}
    expected: dict[Annotation, set[str]] = {
        "box": {f"{name}{stage}" for name in ("loss_cls", "loss_box_reg") for stage in stages}
        | {"loss_mask", "loss_rpn_cls", "loss_rpn_loc"},
        "parsed_part": {f"loss_parsed_part{stage}" for stage in stages} | {"loss_rpn_cls"},
        "image": {f"loss_image{stage}" for stage in stages} | {"loss_rpn_cls"},
    }
    for annotation, names in expected.items():
        data = batch(annotation, dim=SMALL.text_dim)
        model.train()
        model.zero_grad()
        losses = model.losses(data)
        assert set(losses) == names
        torch.stack(list(losses.values())).sum().backward()
        for stage in range(3):
            gradient = model.get_parameter(f"roi_heads.box_head.{stage}.fc1.weight").grad
            assert gradient is not None
            assert gradient.isfinite().all()
            assert gradient.any()
    model.eval()
    (proposed,) = model.propose(data.images[:1], data.text, limit=20)
    assert proposed.refined.shape == proposed.proposals.shape
    options = model.config.inference.model_copy(update={"score_threshold": 0.0, "detections": 5})
    (found,) = model.detect(data.images[:1], data.text, options)
    assert len(found) == 5
    assert found.masks().shape == (5, 96, 128)


@pytest.mark.parametrize(
    ("name", "drop_path"),
    [
        ("test_convnext", 0.1),
        ("mobilenetv3_small_050", 0.0),
        ("swin_tiny_patch4_window7_224", 0.2),
        ("swinv2_tiny_window8_256", 0.0),
    ],
)
def test_networks_of_timm_by_name(name: str, drop_path: float) -> None:
    torch.manual_seed(0)
    backbone = {"name": name, "norm": "batch", "frozen_stages": 0, "drop_path": drop_path}
    model = build_model(ModelConfig.model_validate({**SMALL.model_dump(), "backbone": backbone})).train()
    losses = model.losses(batch(dim=SMALL.text_dim))
    torch.stack(list(losses.values())).sum().backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters()]
    assert sum(gradient is not None for gradient in gradients) > 0.9 * len(gradients)
    # Channels and sides that could be taken for each other: 96 = 384 / 4.
    with torch.no_grad():
        levels = model.eval().backbone.bottom_up(torch.zeros(1, 3, 384, 160))
    channels = model.backbone.bottom_up.channels
    assert [tuple(level.shape) for level in levels] == [
        (1, channels[i], 384 // stride, 160 // stride) for i, stride in enumerate((4, 8, 16, 32))
    ]


def test_options_a_network_does_not_know() -> None:
    with pytest.raises(RecipeError, match="cannot be built like this"):
        TimmBackbone(name="vgg11", norm="batch", frozen_stages=0, drop_path=0.1)


def test_swin_is_timms_where_windows_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224"
    # Of 224 px every level is a multiple of the window of 7; always_partition: the last one shifts as well.
    reference = timm.create_model(name, always_partition=True).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    swin = SwinBackbone(name=name, frozen_stages=2, drop_path=0.2).eval()
    load_backbone(swin, tmp_path / "weights.safetensors", pixel_std=(1.0, 1.0, 1.0))
    image = torch.rand(1, 3, 224, 224)
    expected, x = [], reference.patch_embed(image)
    for stage in reference.layers:
        x = stage(x)
        expected.append(torch.nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
    for level, wanted in zip(swin(image), expected, strict=True):
        torch.testing.assert_close(level, wanted)
    # The original's names are ours.
    save_file(swin.state_dict(), tmp_path / "original.safetensors")
    again = SwinBackbone(name=name, frozen_stages=0, drop_path=0.0).eval()
    load_backbone(again, tmp_path / "original.safetensors", pixel_std=(1.0, 1.0, 1.0))
    torch.testing.assert_close(again(image), swin(image))
    frozen = {name for name, parameter in swin.named_parameters() if not parameter.requires_grad}
    assert {name.split(".blocks")[0] for name in frozen} == {
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "patch_embed.norm.weight",
        "patch_embed.norm.bias",
        "layers.0",
        "layers.1",
    }


def test_swin_takes_images_of_any_size() -> None:
    torch.manual_seed(0)
    swin = SwinBackbone(name="swin_tiny_patch4_window7_224", frozen_stages=0, drop_path=0.0).eval()
    image = torch.rand(1, 3, 32, 112)
    with torch.no_grad():
        assert [tuple(level.shape[2:]) for level in swin(image)] == [(8, 28), (4, 14), (2, 7), (1, 4)]
        # Shifting rolls the map around: the last columns must not see the first ones.
        changed = image.clone()
        changed[..., :4] += 1
        moved = (swin(changed)[0] - swin(image)[0]).abs().amax(1)[0]
    assert moved[:, 0].min() > 1e-3
    assert moved[:, -7:].max() < 1e-6


def test_frozen_stages_and_norms() -> None:
    backbone = TimmBackbone(name="test_resnet", norm="frozen", frozen_stages=2)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert any(name.startswith("base.conv1") for name in frozen)
    assert any(name.startswith("base.layer1") for name in frozen)
    assert not any(name.startswith("base.layer2") for name in frozen)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    levels = backbone(torch.zeros(1, 3, 64, 64))
    assert [level.shape[2] for level in levels] == [16, 8, 4, 2]


def test_model_files_are_strict(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("backbone: {name: test_resnet}\nrpn: {anchor_size: 3}\n")
    with pytest.raises(RecipeError, match=r"rpn\.anchor_size"):
        load_config(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    path.write_text("backbone: {name: test_resnett}\n")
    with pytest.raises(RecipeError, match="no backbone"):
        build_model(load_config(path))


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 640), (800, 1067)), ((100, 400), (333, 1333)), ((375, 500), (800, 1067))]
)
def test_resizing_rule(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(*size, 800, 1333) == expected
