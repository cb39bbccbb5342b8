"""Detectors without a mask head, such as VLPart's of VOC."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from partseg.errors import WeightsError
from partseg.evaluation.predictions import make, read_predictions, write_predictions
from partseg.models.checkpoints import export_vlpart, import_model, load_any, recognise
from partseg.models.config import CascadeStage, ModelConfig, load_config
from partseg.models.files import ModelCard, load_model, read_card, save_model
from partseg.models.vlpart import VLPart, build_model
from partseg.parsing.config import ParserConfig
from partseg.parsing.detector import ModelDetector
from partseg.parsing.parts import detected_parts
from tests.models.conftest import ROOT, batch

CASCADE = tuple(CascadeStage(positive_iou=iou, box_weights=(20, 20, 10, 10)) for iou in (0.6, 0.7))


def changed(config: ModelConfig, **roi: object) -> ModelConfig:
    return config.model_copy(update={"roi": config.roi.model_copy(update=roi)})


@pytest.fixture(scope="module", params=[(), CASCADE], ids=["one stage", "cascade"])
def pair(request: pytest.FixtureRequest, tiny: ModelConfig) -> tuple[VLPart, VLPart]:
    """Detectors of the same seed with and without a mask head."""
    models = []
    for masks in (True, False):
        torch.manual_seed(0)
        models.append(build_model(changed(tiny, cascade=request.param, masks=masks)).eval())
    return models[0], models[1]


def test_everything_but_the_mask_head_is_the_same(pair: tuple[VLPart, VLPart]) -> None:
    full, boxes = (model.state_dict() for model in pair)
    assert list(boxes) == [name for name in full if not name.startswith("roi_heads.mask_head.")]
    assert len(boxes) < len(full)
    for name, tensor in boxes.items():
        assert torch.equal(tensor, full[name]), name


def test_masks_are_not_learnt_even_where_the_data_has_them(pair: tuple[VLPart, VLPart]) -> None:
    names = []
    for model in pair:
        model.train()
        torch.manual_seed(0)
        losses = model.losses(batch())
        torch.stack(list(losses.values())).sum().backward()
        names.append(set(losses))
        model.zero_grad()
        model.eval()
    assert names[0] - names[1] == {"loss_mask"}
    assert names[1] <= names[0]


def test_boxes_are_found_without_masks(pair: tuple[VLPart, VLPart]) -> None:
    images, text = batch().images, torch.randn(4, 128, generator=torch.Generator().manual_seed(1))
    options = pair[0].config.inference.model_copy(update={"score_threshold": 0.0, "detections": 5})
    for full, boxes in zip(*(model.detect(images, text, options) for model in pair), strict=True):
        assert torch.equal(boxes.boxes, full.boxes)
        assert torch.equal(boxes.scores, full.scores)
        assert torch.equal(boxes.labels, full.labels)
        assert None not in full.rles
        assert boxes.rles == (None,) * 5
        with pytest.raises(ValueError, match="boxes without masks"):
            boxes.masks()
    (nothing,) = pair[1].detect(images[:1], text, options.model_copy(update={"score_threshold": 1.0}))
    assert nothing.rles == ()
    assert nothing.masks().shape == (0, 96, 128)


def test_parsed_parts_have_boxes_only(pair: tuple[VLPart, VLPart]) -> None:
    config = ParserConfig(score_threshold=0.0, max_detections=7)
    detector = ModelDetector(pair[1], ("cat:head", "cat:leg"), torch.randn(2, 128))
    (found,) = detector.find(batch().images[:1], config)
    parts = list(detected_parts(found, (96, 128), (192, 256), config))
    assert [part.rle for part in parts] == [None] * 7
    assert max(part.box[2] for part in parts) > 128


def test_predictions_survive_the_disk(pair: tuple[VLPart, VLPart], tmp_path: Path) -> None:
    options = pair[1].config.inference.model_copy(update={"score_threshold": 0.0, "detections": 5})
    (found,) = pair[1].detect(batch().images[:1], torch.randn(2, 128), options)
    xywh = found.boxes.double().numpy()
    xywh[:, 2:] -= xywh[:, :2]
    table = make(7, found.labels.numpy(), found.scores.double().numpy(), xywh, found.rles)
    write_predictions(tmp_path / "predictions.parquet", table)
    assert read_predictions(tmp_path / "predictions.parquet").rles == (None,) * 5


@pytest.mark.parametrize("what", ["folder", "safetensors", "exported", "imported"])
def test_files_come_back(pair: tuple[VLPart, VLPart], tmp_path: Path, what: str) -> None:
    model, path = pair[1], tmp_path / "model"
    path.mkdir()
    card = ModelCard(config=model.config)
    if what == "imported":
        export_vlpart(model, tmp_path / "a.pth")
        import_model(tmp_path / "a.pth", path, model.config)
        assert not load_model(path).config.roi.masks
    elif what == "exported":
        path = tmp_path / "a.pth"
        export_vlpart(model, path, card=card)
    else:
        save_model(path, model, card)
        path = path if what == "folder" else path / "model.safetensors"
    loaded = load_any(path)
    assert loaded.card == card
    again = loaded.model.state_dict()
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_weights_with_and_without_a_mask_head_are_not_mixed_up(
    pair: tuple[VLPart, VLPart], tmp_path: Path
) -> None:
    full, boxes = pair
    for model, config, fault in ((full, boxes.config, "unknown"), (boxes, full.config, "missing")):
        export_vlpart(model, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=rf"\d+ {fault} \(first 'roi_heads.mask_head."):
            load_any(tmp_path / "a.pth", config)


@pytest.mark.parametrize("name", ["vlpart_r50", "vlpart_swinb"])
def test_a_file_without_a_mask_head_is_recognised(name: str) -> None:
    config = load_config(ROOT / f"configs/models/{name}.yaml")
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in build_model(config).state_dict().items()}
    assert recognise(shapes).config == config
    assert "mask head" not in recognise(shapes).words
    heads = [key for key in shapes if key.startswith("roi_heads.mask_head.")]
    boxes = recognise({key: shape for key, shape in shapes.items() if key not in heads})
    assert boxes.config == changed(config, masks=False)
    assert "no mask head" in boxes.words
    # One of which a piece is left is damaged: nothing is guessed.
    damaged = {key: shape for key, shape in shapes.items() if key not in heads or "fcn1" in key}
    assert recognise(damaged).config is None


def test_a_mask_head_is_mentioned_only_where_there_is_none(tiny: ModelConfig, tmp_path: Path) -> None:
    """What was written, or cached, when every detector had one stays as it is."""
    assert "masks" not in tiny.model_dump()["roi"]
    assert "masks" not in tiny.model_dump(mode="json")["roi"]
    boxes = changed(tiny, masks=False)
    assert boxes.model_dump(mode="json")["roi"]["masks"] is False
    for config in (tiny, boxes):
        assert ModelConfig.model_validate(config.model_dump()) == config
        assert ModelConfig.model_validate_json(config.model_dump_json()) == config
        save_model(tmp_path, torch.nn.Linear(1, 1), ModelCard(config=config))
        assert read_card(tmp_path).config == config
