from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from partseg.errors import PartsegError, RecipeError, SourceError, WeightsError
from partseg.predict import Predictor
from partseg.predict import predictor as module
from tests.predict.conftest import LOW, NAMES, photo, write_model


def test_the_example_of_the_docstring_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model", trained=False)
    photo(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestFinder().find(Predictor, "Predictor", globs={})[0]
    assert len(example.examples) >= 5
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(
        failed=0, attempted=len(example.examples)
    )
    assert Image.open(tmp_path / "overlay.png").size[0] >= 480


def test_a_trained_model_looks_for_what_it_was_trained_with(predictor: Predictor) -> None:
    assert tuple(item.name for item in predictor.classes) == NAMES
    assert [item.owner for item in predictor.classes] == [-1, 0, 0, -1]
    assert [item.kind for item in predictor.classes] == ["object", "part", "part", "object"]


def test_path_image_and_array_are_the_same_photo(predictor: Predictor, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    results = [
        predictor(path),
        predictor(str(path)),
        predictor(Image.open(path)),
        predictor(np.array(Image.open(path))),
    ]
    assert len(results[0]) > 0
    for other in results[1:]:
        assert np.array_equal(other.boxes, results[0].boxes)
        assert other.rles == results[0].rles
        assert np.array_equal(other.part_of, results[0].part_of)


def test_predictions_are_what_the_model_detects(predictor: Predictor, tmp_path: Path) -> None:
    result = predictor(photo(tmp_path / "a.png"))
    found = predictor.model.detect(
        [torch.tensor(result.pixels).permute(2, 0, 1)], predictor.text, predictor.options
    )[0]
    assert np.array_equal(result.scores, found.scores.numpy())
    assert result.rles == found.rles
    assert result.scores.min() >= LOW
    assert result.boxes[:, 2].max() <= 96
    assert result.boxes[:, 3].max() <= 72
    for row, owner in enumerate(result.part_of.tolist()):
        if owner >= 0:
            assert result.names[row].partition(":")[0] == result.names[owner]
            inside = (result.mask(row) & result.mask(owner)).sum() / max(1, result.mask(row).sum())
            assert inside >= 0.5 or not result.mask(row).any() or not result.mask(owner).any()


def test_a_higher_score_keeps_the_best(model_folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    scores = predictor(path).scores
    threshold = float(np.median(scores))
    strict = Predictor.from_pretrained(model_folder, device="cpu", score=threshold)
    assert np.array_equal(strict(path).scores, scores[scores > threshold])
    assert len(Predictor.from_pretrained(model_folder, device="cpu", score=1.0)(path)) == 0


def test_several_photos_at_once_of_one_size_are_as_one_by_one(predictor: Predictor, tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    for together, path in zip(predictor.predict(paths), paths, strict=True):
        np.testing.assert_allclose(together.scores[:20], predictor(path).scores[:20], atol=1e-5)
    assert predictor.predict([]) == []


def test_grey_and_16_bit_arrays(predictor: Predictor) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    result = predictor(grey)
    assert result.pixels.shape == (40, 50, 3)
    assert predictor(grey.astype(np.uint16) << 8).rles == result.rles


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((3,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
    ],
)
def test_an_array_that_is_no_image_is_refused(predictor: Predictor, array: np.ndarray) -> None:
    with pytest.raises(SourceError, match="is not an image"):
        predictor(array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary": ""}, "no names"),
        ({"vocabulary": "dog,,cat"}, "empty name"),
        ({"vocabulary": "dog,dog:head,dog"}, "twice: dog"),
        ({"encoder": "offline:64"}, r"shape \(4, 64\); the model takes 128"),
        ({"encoder": "nonsense"}, "unknown text encoder"),
        ({"device": "cuda:99"}, "no such GPU"),
        ({"device": "teapot"}, "no device 'teapot'"),
        ({"amp": "bf16"}, "for CUDA"),
        ({"amp": "fp8"}, "not known"),
        ({"score": 1.5}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(
    model_folder: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(PartsegError, match=message):
        Predictor.from_pretrained(model_folder, **{"device": "cpu", **arguments})  # type: ignore[arg-type]


def test_without_a_vocabulary_anywhere_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give a vocabulary"):
        Predictor.from_pretrained(write_model(tmp_path, trained=False), device="cpu")


def test_no_weights_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        Predictor.from_pretrained(tmp_path / "nowhere", "dog", device="cpu")


def test_embeddings_of_a_file_replace_the_encoder(model_folder: Path, tmp_path: Path) -> None:
    from partseg.vocabulary import build_table

    build_table(["dog:head", "dog", "bird"], encoder="offline:128").save(tmp_path / "table.safetensors")
    some = Predictor.from_pretrained(
        model_folder, "dog,dog:head", embeddings=tmp_path / "table.safetensors", device="cpu"
    )
    both = Predictor.from_pretrained(model_folder, "dog,dog:head", device="cpu")
    assert torch.equal(some.text, both.text)
    whole = Predictor.from_pretrained(model_folder, str(tmp_path / "table.safetensors"), device="cpu")
    assert [item.name for item in whole.classes] == ["dog:head", "dog", "bird"]


def test_the_device_is_chosen() -> None:
    assert module.choose_device("cpu") == torch.device("cpu")
    assert module.choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_16_bits_change_little(predictor: Predictor, tmp_path: Path) -> None:
    image = torch.tensor(predictor(photo(tmp_path / "a.png")).pixels).permute(2, 0, 1)
    full = predictor.model.detect([image], predictor.text, predictor.options)[0]
    half = predictor.model.detect([image], predictor.text, predictor.options, amp=torch.bfloat16)[0]
    assert abs(float(full.scores[0] - half.scores[0])) < 0.02
    assert not torch.equal(full.boxes[:5], half.boxes[:5])
