"""The made-up raw folders have the formats of the real ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, label

from partseg.errors import SourceError
from partseg.synthetic import WORLDS, draw_scene, make_up, raw_coco, raw_lvis, raw_paco, raw_uids
from partseg.synthetic.outlines import outlines, polygons_area
from partseg.synthetic.scenes import VOC_NUMBERS, scene_series, uncompressed

SMALL = {"train": 5, "val": 3, "size": 64}
FOLDERS = {"per_class": 2, "size": 48}
DOGS = {"classes": {"n02099601": "dog", "n02085620": "dog"}}


def settings(source: str) -> dict[str, Any]:
    return FOLDERS if source.startswith("imagenet") else SMALL


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def loaded(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


@pytest.mark.parametrize("source", sorted(WORLDS))
def test_the_seed_decides_every_byte(source: str, tmp_path: Path) -> None:
    options = DOGS if source == "imagenet_folder" else {}
    started = time.process_time()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_up(source, tmp_path / name, {**settings(source), "seed": seed}, options)
    assert time.process_time() - started < 9
    first, same, other = (content(tmp_path / name) for name in "abc")
    assert first == same
    assert len(first) >= 4
    pictures = [name for name in first if name.endswith((".jpg", ".JPEG"))]
    assert all(first[name] != other.get(name) for name in pictures)


def test_an_unknown_world_or_setting_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there are: cityscapes_pp, coco"):
        make_up("nothing", tmp_path, {})
    with pytest.raises(SourceError, match="it takes seed, size, train, val"):
        make_up("coco", tmp_path, {"count": 3})
    with pytest.raises(SourceError, match=r"train: .*greater than or equal to 1"):
        make_up("coco", tmp_path, {"train": 0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cat", "bicycle", "bus", "aeroplane"])
def test_an_outline_encloses_the_mask_and_its_holes(name: str) -> None:
    random = np.random.default_rng(3)
    (drawn,) = draw_scene(name, random, size=96).objects
    for mask in (drawn.mask, *(mask for _, mask in drawn.parts)):
        polygons = outlines(mask, random)
        pieces, count = label(mask)
        assert len(polygons) == count
        filled = np.logical_or.reduce([binary_fill_holes(pieces == n + 1) for n in range(count)])
        enclosed = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(polygons, 96, 96))).astype(bool)
        assert not (enclosed & ~binary_dilation(filled)).any()
        assert not (binary_erosion(filled, border_value=1) & ~enclosed).any()
        assert abs(int(enclosed.sum()) - int(filled.sum())) <= 0.1 * filled.sum() + 2 * count
        assert abs(polygons_area(polygons) - filled.sum()) <= 0.1 * filled.sum() + 2 * count
        coordinates = np.concatenate([np.array(polygon) for polygon in polygons])
        assert coordinates.min() >= 0
        assert coordinates.max() <= 96
        assert (coordinates != coordinates.round()).any()


def test_pieces_that_touch_at_a_corner_are_apart() -> None:
    polygons = outlines(np.eye(3, dtype=bool), np.random.default_rng(0))
    assert len(polygons) == 3


@pytest.mark.parametrize(
    "mask", [np.eye(4, 5, dtype=bool), ~np.eye(4, 5, dtype=bool), np.zeros((2, 3), bool)]
)
def test_uncompressed_runs_are_those_of_pycocotools(mask: np.ndarray[Any, Any]) -> None:
    runs = uncompressed(mask)
    assert sum(runs["counts"]) == mask.size
    decoded = coco_masks.decode(coco_masks.frPyObjects(runs, *mask.shape))
    assert (decoded.astype(bool) == mask).all()


def test_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_up("coco", tmp_path, {"train": 12, "val": 3, "size": 64})
    path = tmp_path / "annotations" / "instances_train2017.json"
    coco = COCO(str(path))
    capsys.readouterr()
    assert sorted(coco.imgs) != [item["id"] for item in loaded(path)["images"]]
    names = {item["id"]: item["name"] for item in coco.dataset["categories"]}
    assert (names[18], names[5], names[4]) == ("dog", "airplane", "motorcycle")
    drawn = 0
    series = scene_series(3, 0, seed=0, count=12, shapes=raw_coco.SHAPES, size=64)
    for image, (scene, _) in zip(coco.dataset["images"], series, strict=True):
        with Image.open(tmp_path / "train2017" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"]) == scene.image.shape[1::-1]
        rows = coco.imgToAnns[image["id"]]
        drawn += len(rows)
        assert sorted(names[row["category_id"]] for row in rows) == sorted(
            item.name for item in scene.objects
        )
        for row in rows:
            (item,) = (item for item in scene.objects if item.name == names[row["category_id"]])
            found = coco.annToMask(row).astype(bool)
            assert (found & item.mask).sum() >= 0.9 * item.mask.sum()
            if row["iscrowd"]:
                assert (found == item.mask).all()
                assert isinstance(row["segmentation"]["counts"], list)
    crowds = [row for row in coco.anns.values() if row["iscrowd"]]
    assert len(coco.anns) == drawn
    assert 0 < len(crowds) < drawn - 12
    assert any(len(row["segmentation"]) > 1 for row in coco.anns.values() if not row["iscrowd"])


def test_lvis(tmp_path: Path) -> None:
    make_up("lvis_v1", tmp_path, SMALL)
    ids = []
    for split in ("train", "val"):
        found = loaded(tmp_path / "annotations" / f"lvis_v1_{split}.json")
        names = {item["id"]: item["name"] for item in found["categories"]}
        assert names[378] == "dog"
        for image in found["images"]:
            assert "file_name" not in image
            assert (tmp_path / image["coco_url"].removeprefix("http://images.cocodataset.org/")).is_file()
            shown = {row["category_id"] for row in found["annotations"] if row["image_id"] == image["id"]}
            assert not shown & set(image["neg_category_ids"])
            assert set(image["not_exhaustive_category_ids"]) <= shown
        assert all("iscrowd" not in row for row in found["annotations"])
        assert {"frequency", "synset", "synonyms", "def", "image_count", "instance_count"} <= set(
            found["categories"][0]
        )
        ids += [row["id"] for row in found["annotations"]]
    assert len(ids) == len(set(ids))
    folders = {path.parent.name for path in tmp_path.rglob("*.jpg")}
    assert folders == {"train2017", "val2017"}
    assert set(raw_lvis.SHAPES) <= set(names.values())


@pytest.mark.parametrize("part", ["lvis", "ego4d"])
def test_paco(part: str, tmp_path: Path) -> None:
    make_up(f"paco_{part}_v1", tmp_path, SMALL)
    found = loaded(tmp_path / "annotations" / f"paco_{part}_v1_train.json")
    photos = tmp_path / "images" if part == "ego4d" else tmp_path
    assert all((photos / image["file_name"]).is_file() for image in found["images"])
    names = {item["id"]: item["name"] for item in found["categories"]}
    assert all((number >= 2000) == (":" in name) for number, name in names.items())
    assert {name.split(":")[1] for name in names.values() if ":" in name} <= {
        item["name"] for item in found["part_categories"]
    }
    attributes = {item["id"] for item in found["attributes"]}
    rows = {row["id"]: row for row in found["annotations"]}
    assert len(rows) == len(found["annotations"])
    for row in rows.values():
        item = rows[row["obj_ann_id"]]
        assert item["image_id"] == row["image_id"]
        assert set(row["attribute_ids"]) <= attributes
        if item is not row:
            assert names[row["category_id"]].split(":")[0] == names[item["category_id"]]
            assert (
                coco_masks.area(coco_masks.merge([row["segmentation"], item["segmentation"]], True))
                == row["area"]
            )
    assert any(row["segmentation"] == [] for row in rows.values()) or part == "lvis"
    assert {raw.split("/")[0] for raw in raw_paco.SHAPES} <= set(names.values())


def test_partimagenet(tmp_path: Path) -> None:
    make_up("partimagenet", tmp_path, {"train": 7, "val": 4, "size": 64})
    wnids = {}
    for split in ("train", "val", "test"):
        found = loaded(tmp_path / f"{split}.json")
        assert [item["id"] for item in found["categories"]] == list(range(40))
        assert found["categories"][25]["name"] == "Car Tier"
        for image in found["images"]:
            assert (tmp_path / split / image["file_name"][:9] / image["file_name"]).is_file()
        wnids[split] = {image["file_name"][:9] for image in found["images"]}
        assert {row["image_id"] for row in found["annotations"]} == {image["id"] for image in found["images"]}
        assert any(len(row["segmentation"]) > 1 for row in found["annotations"])
    assert len(set.union(*wnids.values())) == sum(map(len, wnids.values()))


def test_coco_panoptic(tmp_path: Path) -> None:
    make_up("coco_panoptic", tmp_path, SMALL)
    found = loaded(tmp_path / "annotations" / "panoptic_train2017.json")
    assert {image["id"] for image in found["images"]} == {row["image_id"] for row in found["annotations"]}
    things = {item["id"]: item["isthing"] for item in found["categories"]}
    crowds = 0
    for row in found["annotations"]:
        with Image.open(tmp_path / "annotations" / "panoptic_train2017" / row["file_name"]) as opened:
            assert opened.mode == "RGB"
            ids = np.asarray(opened, np.int64) @ (1, 256, 65536)
        areas = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        assert areas.pop(0) == 2 * len(ids)
        assert areas == {item["id"]: item["area"] for item in row["segments_info"]}
        for item in row["segments_info"]:
            rows, columns = np.nonzero(ids == item["id"])
            x, y, width, height = item["bbox"]
            assert (columns.min(), rows.min(), columns.max(), rows.max()) == (
                x,
                y,
                x + width - 1,
                y + height - 1,
            )
            assert things[item["category_id"]] or not item["iscrowd"]
            crowds += item["iscrowd"]
    assert crowds > 0


def uid_maps(root: Path) -> list[np.ndarray[Any, Any]]:
    maps = []
    for path in sorted(root.rglob("*.tif")):
        with Image.open(path) as opened:
            assert opened.mode == "I"
            maps.append(np.asarray(opened))
    return maps


def test_cityscapes_pp(tmp_path: Path) -> None:
    make_up("cityscapes_pp", tmp_path, {"train": 7, "val": 2, "size": 96})
    photos = sorted(tmp_path.glob("leftImg8bit/*/*/*_leftImg8bit.png"))
    maps = sorted(tmp_path.glob("gtFinePanopticParts/*/*/*_gtFinePanopticParts.tif"))
    assert [path.name.rsplit("_", 1)[0] for path in photos] == [path.name.rsplit("_", 1)[0] for path in maps]
    shown: dict[int, set[int]] = {}
    for uids in uid_maps(tmp_path):
        for uid in np.unique(uids).tolist():
            assert uid <= 99 or 1000 <= uid <= 99999 or uid >= 1000000
            sid = uid if uid < 100 else uid // 1000 if uid < 100000 else uid // 100000
            shown.setdefault(sid, set()).add(uid % 100 if uid >= 1000000 else 0)
    assert set(shown) == {0, 1, 7, 21, 23, 24, 25, 26, 27, 28, 32, 33}
    assert shown[24] | shown[25] == {0, 1, 2, 3, 4}
    assert shown[26] | shown[27] | shown[28] == {0, 1, 2, 3, 4, 5}
    assert shown[32] == shown[33] == {0}
    assert any((uids == 28).any() or (uids == 24).any() for uids in uid_maps(tmp_path))


def test_pascal_pp(tmp_path: Path) -> None:
    make_up("pascal_pp", tmp_path, {"train": 11, "val": 2, "size": 96})
    labels = {path.stem for path in tmp_path.glob("labels/*/*.tif")}
    assert labels == {path.stem for path in tmp_path.glob("JPEGImages/*.jpg")}
    assert len(labels) == 13
    found = {int(uid) for uids in uid_maps(tmp_path) for uid in np.unique(uids)}
    drawn = {VOC_NUMBERS[name] for name in raw_uids._PASCAL_SHAPES}
    assert {uid // 100000 for uid in found if uid >= 100000} == drawn
    wheels = {uid % 100 for uid in found if uid // 100000 == 7}
    assert {20, 21, 40, 41, 3} <= wheels
    assert 84 in found
    assert not any(100 <= uid < 1000 for uid in found)


def test_voc2007(tmp_path: Path) -> None:
    make_up("voc2007", tmp_path, {"train": 8, "val": 3, "size": 96})
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    lists = {
        path.stem: path.read_text().split()
        for path in voc.glob("ImageSets/Main/*.txt")
        if "_" not in path.stem
    }
    assert sorted(lists["train"] + lists["val"]) == lists["trainval"]
    marks = dict(
        line.split() for line in (voc / "ImageSets" / "Main" / "car_train.txt").read_text().splitlines()
    )
    parts, difficult = set(), 0
    for name in lists["trainval"]:
        tree = ElementTree.parse(voc / "Annotations" / f"{name}.xml").getroot()
        with Image.open(voc / "JPEGImages" / f"{name}.jpg") as opened:
            size = tree.find("size")
            assert size is not None
            assert opened.size == (int(size.findtext("width", "")), int(size.findtext("height", "")))
        for box in tree.iter("bndbox"):
            x0, y0, x1, y1 = (int(box.findtext(tag, "")) for tag in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x0 <= x1 <= opened.size[0]
            assert 1 <= y0 <= y1 <= opened.size[1]
        shown = [item.findtext("name") for item in tree.iter("object")]
        difficult += sum(item.findtext("difficult") == "1" for item in tree.iter("object"))
        parts |= {item.findtext("name") for item in tree.iter("part")}
        if name in marks:
            assert (marks[name] != "-1") == ("car" in shown)
    assert parts == {"head", "hand", "foot"}
    assert difficult > 0
