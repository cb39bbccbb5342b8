from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from partseg.datasets import imagenet_folder
from partseg.datasets.catalogue import SOURCES
from partseg.datasets.convert import convert
from partseg.datasets.facts import category_facts, data_manifest
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.synthetic import write_imagenet_folder

CLASSES = {"n02085620": "dog", "n02123045": "cat", "n02123159": "cat"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Seen:
    def __init__(self) -> None:
        self.updates: list[tuple[int, int]] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.updates.append((done, total))

    def log(self, message: str) -> None: ...


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_imagenet_folder(tmp_path / "in", seed=0, per_class=3, classes=CLASSES, size=48)
    return tmp_path / "in"


def test_workers_change_nothing(world: Path, tmp_path: Path) -> None:
    alone = convert("pascal_part", world, tmp_path / "alone")
    seen = Seen()
    together = convert("pascal_part", world, tmp_path / "together", workers=2, shard_records=7, report=seen)
    assert alone == together
    assert content(tmp_path / "alone") == content(tmp_path / "together")
    assert seen.updates[-1] == (31, 31)
    assert alone["source_records"] == alone["images"] == 31
    dataset = Dataset.open(tmp_path / "alone", cache=tmp_path / "cache")
    assert audit(dataset) == []
    assert dataset.manifest.expected["counts"]["train"] == {"source_records": 4998}


def test_an_error_in_a_worker_arrives_whole_and_leaves_no_dataset(raw: Path, tmp_path: Path) -> None:
    (raw / "Annotations_Part/2008_000013.mat").write_bytes(b"")
    with pytest.raises(SourceError, match=r"2008_000013\.mat: the annotation is damaged"):
        convert("pascal_part", raw, tmp_path / "out", workers=2, shard_records=5)
    assert not (tmp_path / "out").exists()


def test_a_split_without_any_usable_image_is_an_error(
    one_object: Callable[..., Path], tmp_path: Path
) -> None:
    root = one_object()
    (root / "Annotations_Part/2008_000001.mat").unlink()
    with pytest.raises(SourceError, match=r"no image of split train can be used .*2008_000001\.mat"):
        convert("pascal_part", root, tmp_path / "out", options={"splits": ["train"], "allow_missing": True})


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("pascal_prat", {}, "unknown source 'pascal_prat'; there are: .*imagenet_folder"),
        ("pascal_part", {"split": 1}, "split: Extra inputs .*known options: splits, allow_missing"),
        ("imagenet_folder", {"max_side": "big"}, "max_side: Input should be a valid integer"),
        ("imagenet_folder", {"classes": "imagenet_vox"}, "no category table 'imagenet_vox'"),
    ],
)
def test_wrong_options_are_explained(
    tmp_path: Path, source: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        convert(source, tmp_path, tmp_path / "out", options=options)


def test_class_folders_become_image_labels(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 20)).save(images / "n02085620" / "wide.png")
    (images / "n02085620" / "notes.txt").write_text("not an image")
    counts = convert(
        "imagenet_folder", images, tmp_path / "out", options={"classes": CLASSES, "max_side": 50}
    )
    assert (counts["source_records"], counts["images"], counts["dropped"]) == (10, 9, 1)
    dataset = Dataset.open(tmp_path / "out", image_root=images, cache=tmp_path / "cache")
    assert [(item.name, item.synset) for item in dataset.categories] == [
        ("cat", "n02123045,n02123159"),
        ("dog", "n02085620"),
    ]
    split = dataset.split("train")
    labels = {record.source_key.split("/")[0]: record.pos_category_ids.tolist() for record in split}
    assert labels == {"n02085620": [2], "n02123045": [1], "n02123159": [1]}
    assert split.findings()["reason"].to_pylist() == ["image-too-large"]
    assert split.read_image(0).shape == (48, 48, 3)


def test_the_first_images_of_each_class(images: Path) -> None:
    options = imagenet_folder.Options(classes=CLASSES, per_class=2)
    assert imagenet_folder.files(images, options)[:2] == [
        "n02085620/n02085620_1.JPEG",
        "n02085620/n02085620_2.JPEG",
    ]
    assert len(imagenet_folder.splits(Raw(images, images), options)["train"]) == 6


def test_missing_class_folders_are_listed(images: Path) -> None:
    options = imagenet_folder.Options(classes={**CLASSES, "n04146614": "bus"})
    with pytest.raises(SourceError, match=r"missing: n04146614/\*\.JPEG"):
        imagenet_folder.files(images, options)
    with pytest.raises(SourceError, match="and 31 more"):
        imagenet_folder.files(images, imagenet_folder.Options())


def test_every_source_has_its_facts() -> None:
    for source in SOURCES:
        assert data_manifest(source).name == source
    voc = category_facts("imagenet_voc")
    assert len(voc["classes"]) == 39
    objects = {item["name"] for item in category_facts("pascal_part")["objects"]}
    assert set(voc["classes"].values()) < objects
    assert len(set(voc["classes"].values())) == 16
    assert json.dumps(voc["classes"])
    with pytest.raises(SourceError, match="no manifest"):
        data_manifest("nothing")
