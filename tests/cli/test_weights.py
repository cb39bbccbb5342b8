from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from partseg.cli import predict, weights
from partseg.errors import WeightsError
from partseg.models.checkpoints import export_vlpart
from partseg.models.config import ModelConfig, load_config
from partseg.models.files import ModelCard, load_model, read_card
from partseg.models.vlpart import build_model
from tests.predict.conftest import photo

TOWER = "partseg-cli-tower"
TINY = Path(__file__).parents[2] / "configs/models/tiny.yaml"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(weights.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def small_tower(folder: Path) -> Path:
    """A file of weights for a CLIP so small that open_clip does not know it yet."""
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    (folder / f"{TOWER}.json").write_text(
        json.dumps({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(folder / f"{TOWER}.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(TOWER, pretrained=None).state_dict(), folder / "tower.pt")
    return folder / "tower.pt"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector written as the original writes its own."""
    path = tmp_path_factory.mktemp("released") / "tiny.pth"
    torch.manual_seed(0)
    model = build_model(load_config(TINY))
    words = {"roi_heads.box_predictor.cls_score.zs_weight": torch.randn(128, 4)}
    export_vlpart(model, path, card=ModelCard(config=model.config), extras=words)
    return path


def test_inspect_lists_groups_sizes_and_what_lies_beside(released: Path) -> None:
    text = run("inspect", released).stdout
    assert "torch zip" in text
    assert "sha256: " in text
    assert "roi_heads.mask_head" in text
    assert "__author__" in text
    assert "roi_heads.mask_head.predictor.bias" not in text
    assert "roi_heads.mask_head.predictor.bias" in run("inspect", released, "--tensors").stdout


def test_inspect_json_has_every_tensor(released: Path) -> None:
    found = json.loads(run("inspect", released, "--json").stdout)
    state = torch.load(released, weights_only=True)["model"]
    assert {t["name"]: (t["shape"], t["dtype"]) for t in found["tensors"]} == {
        name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in state.items()
    }
    assert sum(group["tensors"] for group in found["groups"]) == len(state)
    assert found["bytes"] == released.stat().st_size
    assert found["entries"]["__author__"] == "partseg"


def test_import_and_export_keep_every_tensor(released: Path, tmp_path: Path) -> None:
    text = run("import", released, "--out", tmp_path / "m").stdout
    assert "1 left aside: embeddings of the training's classes" in text
    load_model(tmp_path / "m")
    run("export", tmp_path / "m", "--out", tmp_path / "again.pth")
    before, after = (
        torch.load(path, weights_only=True)["model"] for path in (released, tmp_path / "again.pth")
    )
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_import_takes_a_model_file_and_prints_json(released: Path, tmp_path: Path) -> None:
    state = torch.load(released, weights_only=True)["model"]
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="look like a VLPart with a backbone that is not known"):
        CliRunner().invoke(
            weights.app,
            ["import", str(tmp_path / "bare.pth"), "--out", str(tmp_path / "m")],
            catch_exceptions=False,
        )
    assert not (tmp_path / "m").exists()
    arguments = ("import", tmp_path / "bare.pth", "--out", tmp_path / "m", "--config", TINY, "--json")
    found = json.loads(run(*arguments).stdout)
    assert len(found["loaded"]) + len(found["aside"]) == len(state)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("never",)


def test_a_malicious_file_is_named_and_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    for command in (["inspect", "evil.pth"], ["import", "evil.pth", "--out", "m"]):
        with pytest.raises(WeightsError, match=r"evil.pth: the file asks for 'posix.mkdir'"):
            CliRunner().invoke(weights.app, command, catch_exceptions=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth"]


def test_a_released_file_draws_a_published_vocabulary_and_any_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the original's names and nothing of ours in it, and a text tower of one's own."""
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "cache"))
    tower = small_tower(tmp_path)
    settings = load_config(TINY.parent / "vlpart_r50.yaml").model_dump()
    settings |= {"text_dim": 12, "pyramid_channels": 16}
    settings["roi"] |= {"box_channels": 32, "mask_channels": 16}
    torch.manual_seed(0)
    model = build_model(ModelConfig.model_validate(settings))
    with torch.no_grad():  # random weights are sure of nothing
        model.get_submodule("proposal_generator.rpn_head.objectness_logits").bias.fill_(3.0)
    words = {"roi_heads.box_predictor.cls_score.zs_weight": torch.randn(12, 94)}
    export_vlpart(model, tmp_path / "r50_made_up.pth", extras=words)
    photo(tmp_path / "photo.jpg")

    assert "VLPart, resnet50" in run("import", tmp_path / "r50_made_up.pth", "--out", tmp_path / "m").stdout
    card = read_card(tmp_path / "m")
    assert card.vocabulary is None  # names and prompts are not in the file: those of each vocabulary count
    app = typer.Typer()
    app.command()(predict.predict)
    for weights_file, vocabulary, wanted in (
        (tmp_path / "r50_made_up.pth", "pascal_part", {"aeroplane:body", "dog:head", "dog"}),
        (tmp_path / "m", "dog,dog:head,dog:paw", {"dog", "dog:head", "dog:paw"}),
    ):
        out = tmp_path / f"out-{weights_file.name}"
        result = CliRunner().invoke(
            app,
            [str(tmp_path / "photo.jpg"), "--weights", str(weights_file), "--vocabulary", vocabulary,
             "--encoder", f"open_clip:{TOWER}", "--text-weights", str(tower), "--out", str(out),
             "--device", "cpu", "--score", "0.3"],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        looked_for = {item["name"] for item in json.loads((out / "images.json").read_text())["categories"]}
        assert wanted <= looked_for
        found = json.loads((out / "detections/photo.json").read_text())["detections"]
        assert found
        assert {item["name"] for item in found} <= looked_for
        assert Image.open(out / "overlays/photo.jpg").size[0] >= 480


def test_the_command_line_is_there_without_torch() -> None:
    code = "import sys; import partseg.cli.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
