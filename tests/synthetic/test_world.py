from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from partseg.datasets import pascal_part
from partseg.datasets.source import Raw
from partseg.synthetic import (
    BASE_CLASSES,
    CLASSES,
    NOVEL_CLASSES,
    draw_scene,
    write_imagenet_folder,
    write_pascal_part,
)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_shows_its_parts_inside_the_object(name: str) -> None:
    scene = draw_scene(name, np.random.default_rng(5))
    assert scene.image.shape == (128, 128, 3)
    (drawn,) = scene.objects
    assert drawn.mask.mean() > 0.05
    areas = [int(mask.sum()) for _, mask in drawn.parts]
    assert len(areas) >= 4
    assert min(areas) >= 16
    assert all((mask & ~drawn.mask).sum() == 0 for _, mask in drawn.parts)


def test_a_companion_is_hidden_by_the_main_object() -> None:
    scene = draw_scene("cow", np.random.default_rng(1), companion="car")
    assert [item.name for item in scene.objects] == ["cow", "car"]
    near, far = scene.objects
    assert not (near.mask & far.mask).any()


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_pascal_part(tmp_path / name / "pp", seed=seed, train=3, val=2, size=48)
        write_imagenet_folder(tmp_path / name / "in", seed=seed, per_class=2, classes={"n1": "dog"}, size=48)
    first, same, other = (content(tmp_path / name) for name in "abc")
    assert first == same
    assert {name for name in first if first[name] == other[name]} == {
        "pp/VOCdevkit/VOC2010/ImageSets/Main/train.txt",
        "pp/VOCdevkit/VOC2010/ImageSets/Main/val.txt",
    }


def test_only_validation_images_show_novel_classes(tmp_path: Path) -> None:
    write_pascal_part(tmp_path, seed=0, train=18, val=11, size=48, companions=0.5)
    raw, options = Raw(tmp_path, tmp_path), pascal_part.Options()
    names = {item.category_id: item.name for item in pascal_part.categories(raw, options)}
    shown: dict[str, set[str]] = {}
    for split, keys in pascal_part.splits(raw, options).items():
        records = pascal_part.read(raw, split, keys, options)
        shown[split] = {
            names[row.category_id] for item in records for row in item.annotations if row.parent is None
        }
    assert shown == {"train": set(BASE_CLASSES), "val": set(CLASSES)}
    assert set(CLASSES) - set(BASE_CLASSES) == set(NOVEL_CLASSES)
