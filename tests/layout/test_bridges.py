from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from partseg.errors import LayoutError, PartsegError, SourceError
from partseg.layout import AnnotationRow, Category, Dataset, ImageRow, Record, mask_to_rle, rle_to_mask
from partseg.layout.detectron2 import DatasetDicts, register
from partseg.layout.export.huggingface import write_huggingface
from partseg.layout.supervision import to_detections
from partseg.layout.torch import TorchSplit, collate
from tests.layout.conftest import CATEGORIES, record, write

POLYGON = (2.0, 2.0, 10.5, 2.0, 10.5, 9.0, 2.0, 9.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three images with photos; the last has outlines and a box without a mask."""
    (rle,) = coco_mask.frPyObjects([list(POLYGON)], 20, 30)
    rows = (
        AnnotationRow(
            category_id=11, bbox_xywh=(2, 2, 8.5, 7), area=59.5, rle=rle["counts"], polygons=(POLYGON,)
        ),
        AnnotationRow(category_id=12, bbox_xywh=(1, 1, 5, 6), area=30),
    )
    outlined = Record(image=record("c").image, annotations=rows)
    folder = write(
        tmp_path / "toy",
        {"train-1": [record("a", 1), record("b", 2), outlined], "val": []},
        source_records={"train-1": 3, "val": 0},
    )
    (tmp_path / "raw" / "img").mkdir(parents=True)
    for number, name in enumerate("abc"):
        Image.new("RGB", (30, 20), (10 * number, 0, 0)).save(tmp_path / "raw/img" / f"{name}.jpg", quality=95)
    return Dataset.open(folder, image_root=tmp_path / "raw", cache=tmp_path / "cache")


# --- torch -----------------------------------------------------------------------------------------------


def test_torch_targets_hold_boxes_labels_masks_and_parents(dataset: Dataset) -> None:
    split = dataset.split("train-1")
    image, target = TorchSplit(split)[1]
    stored = split[1]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 20, 30))
    assert target["image_id"] == stored.image_id
    assert target["labels"].tolist() == stored.category_ids.tolist()
    assert target["parents"].tolist() == stored.parent_rows.tolist() == [-1, 0, 0, -1, 3]
    assert target["iscrowd"].tolist() == stored.is_crowd.tolist()
    assert target["masks"].shape == (5, 20, 30)
    for box, mask, rle in zip(target["boxes"], target["masks"].numpy(), stored.rles, strict=True):
        np.testing.assert_array_equal(mask, rle_to_mask(rle, 20, 30))
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_torch_can_keep_some_categories_under_labels_from_one(dataset: Dataset) -> None:
    split = dataset.split("train-1")
    _, target = TorchSplit(split, category_ids=[12, 2, 1], masks="rle")[0]
    assert target["labels"].tolist() == [3, 3, 1, 2]
    assert target["parents"].tolist() == [-1, -1, -1, 2]
    assert [item["counts"] for item in target["masks"]] == [split[0].rles[row] for row in (1, 2, 3, 4)]


def test_torch_without_masks_or_images(dataset: Dataset) -> None:
    image, target = TorchSplit(dataset.split("train-1"), images=False, masks="none")[2]
    assert image is None
    assert "masks" not in target
    _, target = TorchSplit(dataset.split("train-1"), images=False, masks="decoded")[2]
    assert [int(mask.any()) for mask in target["masks"]] == [1, 0]


def halved(image: torch.Tensor, target: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    return image[:, ::2, ::2], {**target, "boxes": target["boxes"] / 2}


def test_torch_pickles_its_path_and_workers_see_what_this_process_sees(dataset: Dataset) -> None:
    data = TorchSplit(dataset.split("train-1"), transforms=halved)
    data[0]
    assert len(pickle.dumps(data)) < 2000
    loader = DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context="spawn", collate_fn=collate
    )
    samples = [pair for images, targets in loader for pair in zip(images, targets, strict=True)]
    assert len(samples) == len(data) == 3
    for index, (image, target) in enumerate(samples):
        expected_image, expected = data[index]
        assert torch.equal(image, expected_image)
        assert image.shape[1:] == (10, 15)
        assert target.keys() == expected.keys()
        for name in ("boxes", "labels", "masks", "parents", "area"):
            assert torch.equal(target[name], expected[name])


# --- detectron2 ------------------------------------------------------------------------------------------


def test_detectron2_dicts_follow_its_standard(dataset: Dataset, tmp_path: Path) -> None:
    dicts = DatasetDicts(dataset.split("train-1"), [11, 12, 1])
    assert len(dicts) == len(list(dicts)) == 3
    first = dicts[0]
    stored = dataset.split("train-1")[0]
    annotations = first.pop("annotations")
    assert first == {
        "file_name": str(tmp_path / "raw/img/a.jpg"),
        "height": 20,
        "width": 30,
        "image_id": stored.image_id,
    }
    assert [row["category_id"] for row in annotations] == [0, 2, 2, 1]  # the paw is not among the categories
    assert [row.get("parent") for row in annotations] == [None, 0, 0, None]
    assert [row["iscrowd"] for row in annotations] == [0, 0, 0, 1]
    assert all(row["bbox_mode"] == 1 for row in annotations)
    assert annotations[1]["bbox"] == stored.boxes_xywh[1].tolist()
    assert annotations[1]["segmentation"] == {"size": [20, 30], "counts": stored.rles[1]}
    outlined = dicts[-1]["annotations"]
    assert outlined[0]["segmentation"] == [list(POLYGON)]
    assert "segmentation" not in outlined[1]
    assert [item["image_id"] for item in dicts[1:]] == [2, 3]
    assert len(pickle.dumps(dicts)) < 2000


def test_detectron2_register_fills_both_catalogues(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, Any] = {}
    metadata: dict[str, dict[str, Any]] = {}
    data = ModuleType("detectron2.data")
    data.DatasetCatalog = SimpleNamespace(register=registered.__setitem__)
    data.MetadataCatalog = SimpleNamespace(
        get=lambda name: SimpleNamespace(set=metadata.setdefault(name, {}).update)
    )
    monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
    monkeypatch.setitem(sys.modules, "detectron2.data", data)
    dicts = register("toy_train", dataset, "train-1")
    assert registered["toy_train"]() == list(dicts)
    assert metadata["toy_train"] == {
        "thing_classes": ["dog:head", "cat:paw", "dog", "cat"],
        "thing_dataset_id_to_contiguous_id": {1: 0, 2: 1, 11: 2, 12: 3},
        "evaluator_type": "coco",
    }
    register("cats", dataset, "train-1", category_ids=[12])
    assert metadata["cats"]["thing_colors"] == [[0xFF, 0x80, 0x00]]


def test_detectron2_register_says_what_is_missing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(PartsegError, match="detectron2 is not installed"):
        register("toy", dataset, "train-1")


def test_only_the_bridge_to_torch_imports_it() -> None:
    script = (
        "import sys; from partseg.layout import detectron2, supervision;"
        "from partseg.layout.export import coco, huggingface, panoptic, semantic, tapps;"
        "import partseg.cli.data_export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# --- supervision -----------------------------------------------------------------------------------------


def test_supervision_gets_arrays_of_one_length(dataset: Dataset) -> None:
    stored = dataset.split("train-1")[0]
    found = to_detections(stored, dataset.categories)
    assert found["data"]["class_name"].tolist() == ["dog", "dog:head", "dog:head", "cat", "cat:paw"]
    assert found["data"]["parent"].tolist() == [-1, 0, 0, -1, 3]
    assert found["class_id"].tolist() == stored.category_ids.tolist()
    assert found["mask"].shape == (5, 20, 30)
    x, y, width, height = stored.boxes_xywh[2].tolist()
    assert found["xyxy"][2].tolist() == [x, y, x + width, y + height]
    assert found["confidence"] is None
    boxes_only = to_detections(dataset.split("train-1")[2], dataset.categories)
    assert boxes_only["mask"] is None
    assert boxes_only["xyxy"].shape == (2, 4)


# --- Hugging Face ----------------------------------------------------------------------------------------


def load(folder: Path, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def test_hugging_face_loads_the_folder(dataset: Dataset, tmp_path: Path) -> None:
    assert write_huggingface(dataset, tmp_path / "hf") == {"images": 3, "objects": 12}
    loaded = load(tmp_path / "hf", tmp_path / "hf_cache")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train_1": 3}
    split, rows = dataset.split("train-1"), loaded["train_1"]
    label = rows.features["objects"].feature["category"]
    assert label.names == [item.name for item in CATEGORIES]
    for index, row in enumerate(rows):
        stored = split[index]
        np.testing.assert_array_equal(np.asarray(row["image"]), split.read_image(index))
        assert [row[name] for name in ("image_id", "file_name", "height", "width")] == [
            stored.image_id,
            stored.file_name,
            stored.height,
            stored.width,
        ]
        objects = row["objects"]
        names = [dataset.category(label.int2str(item["category"])).category_id for item in objects]
        assert names == stored.category_ids.tolist()
        assert [-1 if item["parent"] is None else item["parent"] for item in objects] == (
            stored.parent_rows.tolist()
        )
        assert [item["rle"] and item["rle"].encode() for item in objects] == stored.rles
        assert [item["bbox"] for item in objects] == stored.boxes_xywh.tolist()
    assert rows[1]["objects"][4]["score"] == 0.25
    assert rows[1]["objects"][0]["score"] is None


def test_hugging_face_with_paths_or_without_photos(dataset: Dataset, tmp_path: Path) -> None:
    write_huggingface(dataset, tmp_path / "linked", splits=["train-1"], photos="link")
    rows = load(tmp_path / "linked", tmp_path / "cache_a")["train_1"]
    assert rows[2]["image"].size == (30, 20)
    plain = Dataset.open(dataset.folder, cache=dataset.cache)
    write_huggingface(plain, tmp_path / "plain", splits=["train-1"], photos="none")
    rows = load(tmp_path / "plain", tmp_path / "cache_b")["train_1"]
    assert "image" not in rows.features
    assert rows[0]["file_name"] == "img/a.jpg"


def test_hugging_face_files_are_of_bounded_size(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partseg.layout.export.huggingface._ROWS", 1)
    monkeypatch.setattr("partseg.layout.export.huggingface._FILE_BYTES", 1)
    write_huggingface(dataset, tmp_path / "hf")
    files = sorted((tmp_path / "hf/data").glob("train_1-*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == [1, 1, 1]
    assert load(tmp_path / "hf", tmp_path / "hf_cache")["train_1"]["image_id"] == [1, 2, 3]


def test_hugging_face_folder_appears_whole_or_not_at_all(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "raw/img/b.jpg").unlink()
    with pytest.raises(SourceError, match=r"b\.jpg: the photo cannot be read"):
        write_huggingface(dataset, tmp_path / "hf")
    assert not [path for path in tmp_path.iterdir() if "hf" in path.name]
    with pytest.raises(LayoutError, match="no image to write"):
        write_huggingface(dataset, tmp_path / "hf", splits=["val"])
    with pytest.raises(LayoutError, match="folder of the images is not known"):
        write_huggingface(Dataset.open(dataset.folder, cache=dataset.cache), tmp_path / "hf")


def test_hugging_face_names_the_licence_of_the_source(tmp_path: Path) -> None:
    image = ImageRow(file_name="x.jpg", height=2, width=2, source_key="x")
    row = AnnotationRow(
        category_id=1, bbox_xywh=(0, 0, 1, 1), area=1, rle=mask_to_rle(np.array([[1, 0], [0, 0]]))
    )
    folder = write(
        tmp_path / "toy",
        {"val": [Record(image=image, annotations=(row,))]},
        categories=[Category(category_id=1, name="thing: 'quoted'", kind="object")],
        sources=[{"name": "photos", "licence": "CC BY 4.0"}],
    )
    dataset = Dataset.open(folder, cache=tmp_path / "cache")
    write_huggingface(dataset, tmp_path / "hf", photos="none")
    assert "CC BY 4.0" in (tmp_path / "hf/README.md").read_text()
    features = json.loads(pq.read_schema(tmp_path / "hf/data/val-00000.parquet").metadata[b"huggingface"])
    names = features["info"]["features"]["objects"]["feature"]["category"]["names"]
    assert names == ["thing: 'quoted'"]
