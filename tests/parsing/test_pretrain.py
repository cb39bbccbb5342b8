from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.errors import TrainingError
from partseg.layout import Dataset
from partseg.parsing.config import ViTConfig
from partseg.parsing.pretrain import (
    WEIGHTS,
    LabelledImage,
    PretrainConfig,
    contrast,
    pretrain,
    random_views,
    same_places,
    training_images,
    words_seen,
)
from partseg.parsing.vit import load_vit
from tests.parsing.conftest import CATEGORIES, masks, picture

SMALL = PretrainConfig(
    vit=ViTConfig(patch_size=8, dim=32, depth=1, heads=2, image_size=48),
    iterations=25,
    batch=6,
    crop=48,
    place_weight=0.2,
    places=8,
)


def images() -> list[LabelledImage]:
    found = []
    for i in range(8):
        head, body = masks(i)
        parts = [("head", head), ("torso", body)] if i % 2 else None
        found.append(
            LabelledImage(pixels=picture(i, red=230 - 5 * i), label="cat" if i % 2 else "dog", parts=parts)
        )
    return found


def test_it_learns_and_its_weights_load(tmp_path: Path) -> None:
    pretrain(SMALL, images(), tmp_path)
    model, sizes = load_vit(tmp_path / WEIGHTS)
    assert sizes == SMALL.vit
    assert not model.training
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 25
    losses = [float(line.split('"loss_part":')[1].split(",")[0]) for line in lines]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_parts_cannot_be_learned_from_images_without_parts(tmp_path: Path) -> None:
    bare = [replace(image, parts=None) for image in images()]
    with pytest.raises(TrainingError, match="no image has parts"):
        pretrain(SMALL, bare, tmp_path)
    others = SMALL.model_copy(update={"part_weight": 0.0, "iterations": 2})
    assert set(pretrain(others, bare, tmp_path)) == {"loss", "loss_label", "loss_place"}


def test_the_same_call_writes_the_same_bytes_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    short = SMALL.model_copy(update={"iterations": 3})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pretrain(short, images(), tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    pretrain(short, images(), tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["descriptors.json", "descriptors.safetensors", "metrics.jsonl"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="do not fill a batch"):
        pretrain(SMALL, images()[:3], tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_place_is_found_again_in_the_other_view(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # The image shows its own coordinates; recolouring is undone by comparing places, not colours.
    first = random_views(torch.zeros(4, 3, 48, 48), SMALL, draw)
    second = random_views(torch.zeros(4, 3, 48, 48), SMALL, draw)
    places = torch.rand(4, 16, 2, generator=draw) * 2 - 1
    other, shared = same_places(places, first, second)

    def in_image(view: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bij,bnj->bni", view[:, :, :2], xy) + view[:, None, :, 2]

    assert torch.allclose(in_image(first.to_image, places), in_image(second.to_image, other), atol=1e-4)
    assert (in_image(first.to_image, places).abs() <= 1 + 1e-5).all()  # views stay inside the image
    assert torch.equal(shared, (other.abs() < 1).all(-1))


def test_part_words_move_with_the_view() -> None:
    words = torch.arange(16.0).view(1, 1, 4, 4)
    draw = torch.Generator().manual_seed(0)
    whole = random_views(torch.zeros(1, 3, 48, 48), SMALL.model_copy(update={"smallest_crop": 1.0}), draw)
    whole.to_image[0] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert words_seen(words, whole, (4, 4))[0].tolist() == list(range(-1, 15))
    whole.to_image[0, 0, 0] = -1  # mirrored
    assert words_seen(words, whole, (4, 4))[0, :4].tolist() == [2, 1, 0, -1]


def test_contrast_prefers_partners() -> None:
    rows = torch.eye(4)
    assert contrast(rows, rows, 0.1) < 0.01
    assert contrast(rows, rows.roll(1, 0), 0.1) > 5


def test_images_of_a_dataset(base_dataset: Dataset, labelled_dataset: Dataset) -> None:
    annotated = training_images(base_dataset.split("train"), CATEGORIES, part_ids={2})
    assert [image.label for image in annotated] == ["cat"] * 3
    assert annotated[0].parts is not None
    assert [word for word, _ in annotated[0].parts] == ["head"]
    labelled = training_images(labelled_dataset.split("train"), CATEGORIES)
    assert len(labelled) == 9  # the tenth has no label
    assert all(image.parts is None for image in labelled)
