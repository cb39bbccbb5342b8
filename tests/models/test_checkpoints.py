from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import create_model
from torch import Tensor, nn

from partseg.errors import WeightsError
from partseg.models.backbones import TimmBackbone
from partseg.models.checkpoints import (
    export_vlpart,
    import_model,
    load_any,
    load_backbone,
    original_tensors,
    recognise,
)
from partseg.models.checkpoints.names import (
    ASIDE,
    aside,
    caffe2_resnet,
    detectron2_resnet,
    swin_from_timm,
    swin_to_timm,
    to_caffe2,
)
from partseg.models.config import ModelConfig, load_config
from partseg.models.files import ModelCard, Vocabulary, load_model, save_model
from partseg.models.swin import SwinBackbone
from partseg.models.vlpart import VLPart, build_model

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "zoo" / "state_dicts"
STD = (58.395, 57.12, 57.375)
RELEASED = {
    "vlpart_r50_joint_inparsed": "resnet50",
    "vlpart_r50_lvis": "resnet50",
    "vlpart_r50_pascalpart": "resnet50",
    "vlpart_swinbase_joint_inparsed": "swin_base_patch4_window7_224",
    "vlpart_swinbase_pascalpart": "swin_base_patch4_window7_224",
}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the originals' tables of tensors are not here")


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


# The original's names


def table(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → shape and type of every tensor of a released file."""
    rows = (line.split("\t") for line in (SHARED / f"{name}.txt").read_text().splitlines())
    return {
        row[0]: (tuple(int(n) for n in row[1].strip("[]").split(",") if n.strip()), row[2])
        for row in rows
        if len(row) == 3
    }


def made_up(name: str) -> dict[str, Tensor]:
    """Tensors of the shapes of a released file; windows of one storage, so that the file stays small."""
    numbers = torch.randn(13_000_000, generator=torch.Generator().manual_seed(0))
    result, start = {}, 0
    for key, (shape, dtype) in table(name).items():
        count = math.prod(shape)
        start = (start + 7919) % (len(numbers) - count)
        whole = numbers[start : start + count].view(shape)
        result[key] = whole if dtype == "float32" else (whole * 100).long()
    return result


@pytest.fixture(scope="module")
def built() -> dict[str, VLPart]:
    return {
        "resnet50": build_model(load_config(ROOT / "configs/models/vlpart_r50.yaml")),
        "swin_base_patch4_window7_224": build_model(load_config(ROOT / "configs/models/vlpart_swinb.yaml")),
    }


@needs_shared
@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_of_the_originals_is_ours_or_set_aside(name: str, built: dict[str, VLPart]) -> None:
    shapes = {key: shape for key, (shape, _) in table(name).items()}
    found = recognise(shapes)
    model = built[RELEASED[name]]
    assert found.kind == "vlpart"
    assert found.config == model.config
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    reasons = {key: aside(key, ASIDE) for key in shapes if key not in ours}
    assert all(reasons.values())
    assert {key: shape for key, shape in shapes.items() if key not in reasons} == ours
    # What our models can compute is written back; only what belongs to a training is not.
    left_out = set(shapes) - set(original_tensors(model))
    assert all("zs_weight" in key or "freq_weight" in key for key in left_out)
    assert set(original_tensors(model)) <= set(shapes)


@needs_shared
@pytest.mark.parametrize(
    ("name", "folder"), [("vlpart_r50_lvis", True), ("vlpart_swinbase_joint_inparsed", False)]
)
def test_a_released_file_is_loaded_and_comes_back(tmp_path: Path, name: str, folder: bool) -> None:
    original = made_up(name)
    torch.save({"model": original, "iteration": 7}, tmp_path / "a.pth")
    if folder:
        import_model(tmp_path / "a.pth", tmp_path / "m")
    loaded = load_any(tmp_path / ("m" if folder else "a.pth"))
    assert loaded.report.complete
    back = original_tensors(loaded.model, loaded.extras)
    assert set(back) == set(original)
    for key, tensor in original.items():
        assert back[key].dtype == tensor.dtype, key
        assert torch.equal(back[key], tensor), key


@needs_shared
def test_weights_of_another_detector_are_named(tmp_path: Path, built: dict[str, VLPart]) -> None:
    torch.save({"model": made_up("vlpart_r50_pascalpart")}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"missing.*looks like VLPart, resnet50, one box head"):
        load_any(tmp_path / "a.pth", built["swin_base_patch4_window7_224"].config)


def test_computed_tensors_are_the_originals() -> None:
    # The index of Swin's windows, from its definition: offsets of places, row by row.
    model = SwinBackbone(name="swin_tiny_patch4_window7_224", frozen_stages=0, drop_path=0.0)
    places = np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij")).reshape(2, -1)
    rows, columns = places[:, :, None] - places[:, None, :] + 6
    ours = dict(model.named_buffers())["layers.0.blocks.0.attn.relative_position_index"]
    assert torch.equal(ours.reshape(49, 49), torch.from_numpy(rows * 13 + columns))


# Our own models


@pytest.fixture(scope="module")
def tiny_model(tiny: ModelConfig) -> VLPart:
    torch.manual_seed(0)
    return build_model(tiny).eval()


CARD_WORDS = Vocabulary(names=("dog", "dog:head"), encoder="offline", template="a {}")


@pytest.mark.parametrize("what", ["folder", "safetensors", "exported"])
def test_our_own_files_are_loaded(tmp_path: Path, tiny_model: VLPart, what: str) -> None:
    card = ModelCard(config=tiny_model.config, vocabulary=CARD_WORDS, iterations=3)
    (tmp_path / "m").mkdir()
    save_model(tmp_path / "m", tiny_model, card)
    path = tmp_path / "m"
    if what == "safetensors":
        path = path / "model.safetensors"
    elif what == "exported":
        path = tmp_path / "a.pth"
        export_vlpart(tiny_model, path, card=card)
    loaded = load_any(path)
    assert loaded.card == card
    assert loaded.report.complete
    assert not loaded.model.training
    same(dict(loaded.model.state_dict()), dict(tiny_model.state_dict()))


def test_an_imported_model_is_a_model_folder(tmp_path: Path, tiny_model: VLPart) -> None:
    export_vlpart(tiny_model, tmp_path / "a.pth")
    import_model(tmp_path / "a.pth", tmp_path / "m", tiny_model.config)
    same(dict(load_model(tmp_path / "m").state_dict()), dict(tiny_model.state_dict()))
    with pytest.raises(WeightsError, match="there is a model already"):
        import_model(tmp_path / "a.pth", tmp_path / "m", tiny_model.config)


def test_torch_alone_reads_what_is_exported(tmp_path: Path, tiny_model: VLPart) -> None:
    words = torch.randn(128, 3)
    name = "roi_heads.box_predictor.cls_score.zs_weight"
    export_vlpart(tiny_model, tmp_path / "a.pth", extras={name: words})
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert torch.equal(content["model"].pop(name), words)
    same(content["model"], dict(tiny_model.state_dict()))


def test_a_damaged_model_is_an_error_in_every_way(tmp_path: Path, tiny_model: VLPart) -> None:
    state = dict(tiny_model.state_dict())
    first, second = "roi_heads.box_head.fc1.weight", "backbone.fpn_lateral2.bias"
    changed = {**state, first: state[first][:-1], "strange.weight": torch.zeros(2)}
    del changed[second]
    torch.save({"model": changed}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as error:
        load_any(tmp_path / "a.pth", tiny_model.config)
    for words in (
        f"1 missing (first {second!r})",
        "1 unknown (first 'strange.weight')",
        f"{first!r}: [191, ",
    ):
        assert words in str(error.value)


def test_the_report_says_what_became_of_every_tensor(tmp_path: Path, tiny_model: VLPart) -> None:
    extra = {"roi_heads.box_predictor.freq_weight": torch.zeros(1203)}
    export_vlpart(tiny_model, tmp_path / "a.pth", extras=extra)
    loaded = load_any(tmp_path / "a.pth", tiny_model.config)
    assert set(loaded.extras) == set(extra)
    assert set(loaded.report.loaded) == set(tiny_model.state_dict())
    text = str(loaded.report)
    assert f"{len(loaded.report.loaded)} tensors loaded" in text
    assert "1 left aside: how often the training drew each class" in text


@pytest.mark.parametrize("change", [{"name": "hf-hub:someone/network"}, {"name": "resnet50", "norm": 3}])
def test_a_description_in_a_file_is_not_trusted(
    tmp_path: Path, tiny_model: VLPart, change: dict[str, object]
) -> None:
    card = ModelCard(config=tiny_model.config).model_dump(mode="json")
    card["config"]["backbone"] |= change
    content = {"model": dict(tiny_model.state_dict()), "partseg_model": json.dumps(card)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"no network of timm|cannot be used"):
        load_any(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"backbone.x": (1,), "sem_seg_head.predictor.y": (1,)}, "Mask2Former"),
        ({"roi_heads.box_predictor.cls_score.weight": (81, 1024)}, "Mask R-CNN of detectron2"),
        ({"visual.conv1.weight": (64, 3, 3, 3)}, "CLIP"),
        ({"cls_token": (1, 1, 384)}, "vision transformer"),
        ({"anything": (1,)}, "nothing that is known"),
    ],
)
def test_another_network_is_named(tmp_path: Path, names: dict[str, tuple[int, ...]], words: str) -> None:
    torch.save({name: torch.zeros(shape) for name, shape in names.items()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=f"look like .*{words}"):
        load_any(tmp_path / "a.pth")


def test_shapes_that_make_no_sense_are_no_model() -> None:
    shapes = {
        "roi_heads.box_predictor.cls_score.linear.weight": (1 << 40, 0),
        "backbone.fpn_output2.weight": (256, 256, 3, 3),
        "roi_heads.box_head.fc1.weight": (1024, 12544),
        "roi_heads.mask_head.deconv.weight": (256, 256, 2, 2),
        "roi_heads.mask_head.mask_fcn1.weight": (256, 256, 3, 3),
        **{f"backbone.bottom_up.base.layer{n + 1}.{i}.conv3.weight": (1,) for n in range(4)
           for i in range((3, 4, 6, 3)[n])},
    }  # fmt: skip
    assert recognise(shapes).config is None
    assert recognise({**shapes, "roi_heads.box_predictor.cls_score.linear.weight": (512, 1024)}).config


# ImageNet backbones


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = create_model("resnet50", pretrained=False).state_dict()
    return {name: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for name, t in state.items()}


@pytest.fixture
def bottom() -> TimmBackbone:
    return TimmBackbone(name="resnet50", norm="frozen", frozen_stages=2)


def test_a_timm_resnet_is_loaded(tmp_path: Path, resnet: dict[str, Tensor], bottom: TimmBackbone) -> None:
    torch.save(resnet, tmp_path / "a.pth")
    report = load_backbone(bottom, tmp_path / "a.pth", pixel_std=STD)
    assert report.found == "a backbone, resnet50"
    assert {name for name in report.aside if "num_batches" not in name} == {"fc.weight", "fc.bias"}
    for name, tensor in bottom.base.state_dict().items():
        assert torch.equal(tensor, resnet[name]), name


def test_a_detectron2_resnet_is_loaded(
    tmp_path: Path, resnet: dict[str, Tensor], bottom: TimmBackbone
) -> None:
    names = detectron2_resnet()
    assert len(set(names.values())) == len(names)
    assert set(names.values()) == set(bottom.base.state_dict())
    arrays = {name: resnet[ours].numpy() for name, ours in names.items()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True}, protocol=2))
    assert load_backbone(bottom, tmp_path / "a.pkl", pixel_std=STD).complete
    for name, tensor in bottom.base.state_dict().items():
        assert torch.equal(tensor, resnet[name]), name


def test_a_caffe2_resnet_is_loaded_and_comes_back(
    tmp_path: Path, resnet: dict[str, Tensor], bottom: TimmBackbone
) -> None:
    names = caffe2_resnet()
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} <= set(names)
    original = {name: resnet[ours] for name, ours in names.items()}
    others = {"fc1000_w": torch.zeros(1000, 2048), "fc1000_b": torch.zeros(1000)}
    arrays = {name: tensor.numpy() for name, tensor in (original | others).items()}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=2))
    report = load_backbone(bottom, tmp_path / "R-50.pkl", pixel_std=STD)
    assert set(report.aside) == set(others)
    assert any("blue-green-red" in note for note in report.notes)
    back = to_caffe2(bottom.base.state_dict(), STD)
    assert set(back) == set(original)
    for name, tensor in original.items():
        torch.testing.assert_close(back[name], tensor, rtol=1e-6, atol=1e-6)
    # The same image, as that network sees it and as ours does.
    image = torch.rand(1, 3, 32, 32) * 255 - 110
    theirs = nn.functional.conv2d(image.flip(1), original["conv1_w"], stride=2, padding=3)
    theirs = theirs * original["res_conv1_bn_s"].view(1, -1, 1, 1) + original["res_conv1_bn_b"].view(
        1, -1, 1, 1
    )
    ours = bottom.base.get_submodule("conv1")(image / torch.tensor(STD).view(1, 3, 1, 1))
    ours = bottom.base.get_submodule("bn1")(ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("names", ["timm", "original"])
def test_a_swin_is_loaded_in_either_naming(tmp_path: Path, names: str) -> None:
    name = "swin_tiny_patch4_window7_224"
    torch.manual_seed(0)
    state = create_model(name, pretrained=False).state_dict()
    ours = {swin_from_timm(key): tensor for key, tensor in state.items()}
    assert [swin_to_timm(key) for key in ours] == list(state)
    arrays = {key: t.numpy() for key, t in (state if names == "timm" else ours).items()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=4))
    backbone = SwinBackbone(name=name, frozen_stages=0, drop_path=0.0)
    report = load_backbone(backbone, tmp_path / "a.pkl", pixel_std=STD)
    assert report.found == f"a backbone, {name}"
    assert len(report.aside) == 4  # the classifier and the norm before it
    for key, tensor in backbone.state_dict().items():
        assert key.startswith("norm") or torch.equal(tensor, ours[key]), key


def test_a_backbone_of_another_kind_is_refused(
    tmp_path: Path, resnet: dict[str, Tensor], bottom: TimmBackbone
) -> None:
    torch.save({name: t for name, t in resnet.items() if not name.startswith("layer3.5")}, tmp_path / "a.pth")
    before = bottom.base.get_submodule("conv1").weight.clone()
    with pytest.raises(WeightsError, match="15 missing"):
        load_backbone(bottom, tmp_path / "a.pth", pixel_std=STD)
    assert torch.equal(bottom.base.get_submodule("conv1").weight, before)
    with pytest.raises(WeightsError, match="look like a backbone, some ResNet"):
        load_any(tmp_path / "a.pth")
