from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from partseg.errors import PartsegError, RecipeError, SourceError, WeightsError
from partseg.predict import Prediction, Predictor
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
        ({"precision": "fp8"}, "not known"),
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


def same_but_for(full: Prediction, other: Prediction, *, score: float, pixels: float) -> None:
    """The best detections have a counterpart of the same name, so near."""
    distance = np.abs(full.boxes[:20, None] - other.boxes[None]).max(2)
    distance[full.labels[:20, None] != other.labels[None]] = np.inf
    assert distance.min(1).max() <= pixels
    assert np.abs(full.scores[:20] - other.scores[distance.argmin(1)]).max() <= score


def test_16_bits_change_little(model_folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    half = Predictor.from_pretrained(model_folder, device="cpu", score=LOW / 2, precision="bf16")
    path = photo(tmp_path / "a.png")
    full, other = predictor(path), half(path)
    # bfloat16 keeps 8 bits: 0.4 % of a number.
    same_but_for(full, other, score=0.02, pixels=2)
    assert not np.array_equal(full.scores[:20], other.scores[:20])


def test_a_translated_network_finds_the_same(
    model_folder: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translated = torch.nn.Module.compile
    # The translator alone, without the C++ compiler behind it, which takes a minute; see the test below.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: translated(self, backend="eager"))
    counters = torch._dynamo.utils.counters
    counters.clear()
    other = Predictor.from_pretrained(model_folder, device="cpu", score=LOW / 2, compile=True)
    path = photo(tmp_path / "a.png")
    same_but_for(predictor(path), other(path), score=1e-4, pixels=0.05)
    assert counters["stats"]["unique_graphs"] >= 1


@pytest.mark.slow
def test_a_compiled_network_finds_the_same(model_folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    other = Predictor.from_pretrained(model_folder, device="cpu", score=LOW / 2, compile=True)
    for size in ((96, 72), (60, 90)):
        path = photo(tmp_path / f"{size[0]}.png", size=size)
        same_but_for(predictor(path), other(path), score=1e-4, pixels=0.05)


def test_what_cannot_be_compiled_says_so(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no compiler here")

    translated = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: translated(self, backend=broken))
    other = Predictor.from_pretrained(model_folder, device="cpu", compile=True)
    with pytest.raises(RecipeError, match=r"compiled here \(no compiler here\); leave compile out"):
        other(photo(tmp_path / "a.png"))


def names(predictor: Predictor) -> list[str]:
    return [item.name for item in predictor.classes]


def test_parts_alone_bring_their_objects(model_folder: Path) -> None:
    def look_for(vocabulary: str, **options: Any) -> Predictor:
        return Predictor.from_pretrained(model_folder, vocabulary, device="cpu", **options)

    found = look_for("dog:head,cat:tail,dog:paw,cat")
    assert names(found) == ["dog:head", "cat:tail", "dog:paw", "cat", "dog"]
    assert [item.owner for item in found.classes] == [4, 3, 4, -1, -1]
    assert [item.category_id for item in found.classes] == [1, 2, 3, 4, 5]
    assert torch.equal(found.text[4], look_for("dog").text[0])
    assert names(look_for("dog:head", objects=False)) == ["dog:head"]
    assert names(look_for("Dog,dog:head")) == ["Dog", "dog:head"]  # not the same object twice
    published = look_for("pascal_part").classes
    alone = look_for("pascal_part", objects=False).classes
    assert [item.name for item in published[len(alone) :]][:2] == ["aeroplane", "bicycle"]
    assert all(item.kind == "object" for item in published[len(alone) :])
    assert all(item.owner >= len(alone) for item in published[: len(alone)])
    # Published ids stay, so that results can be compared with the dataset's.
    ids = [item.category_id for item in published]
    assert ids[: len(alone)] == [item.category_id for item in alone]
    assert len(set(ids)) == len(ids)


def test_a_table_without_the_objects_leaves_it_at_the_parts(model_folder: Path, tmp_path: Path) -> None:
    from partseg.vocabulary import build_table

    file = tmp_path / "table.safetensors"
    for rows, expected in (
        (["dog:head", "cat:tail", "dog"], ["dog:head", "cat:tail"]),
        (["cat", "dog:head", "cat:tail", "dog"], ["dog:head", "cat:tail", "dog", "cat"]),
    ):
        build_table(rows, encoder="offline:128").save(file)
        found = Predictor.from_pretrained(model_folder, "dog:head,cat:tail", embeddings=file, device="cpu")
        assert names(found) == expected
