"""LVIS: where photos lie, and which categories were looked for in an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from partseg.datasets import lvis_v1
from partseg.datasets.convert import convert
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Dataset
from partseg.layout.export.coco import export
from partseg.synthetic.raw_lvis import write_lvis
from tests.bench.lvis_import import write_lvis_like

SHARED = Path(__file__).parents[2].parent / "shared"
OLD = SHARED / "samples/lvis_v0.5"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lvis")
    write_lvis(root, seed=2, train=6, val=4, size=64, minival=True)
    return root


def test_a_made_up_folder_comes_back_exactly(world: Path, tmp_path: Path) -> None:
    counts = convert("lvis_v1", world, tmp_path / "dataset", options={"images": "hash"})
    assert (counts["images"], counts["findings"]) == (10, 0)
    dataset = Dataset.open(tmp_path / "dataset", image_root=world)
    for split in ("train", "val"):
        source = orjson.loads((world / f"annotations/lvis_v1_{split}.json").read_bytes())
        export(dataset, split, tmp_path / "out.json", ids="source")
        assert orjson.loads((tmp_path / "out.json").read_bytes()) == source
        for index, image in enumerate(source["images"]):
            record = dataset.split(split)[index]
            assert record.neg_category_ids.tolist() == image["neg_category_ids"]
            assert record.not_exhaustive_category_ids.tolist() == image["not_exhaustive_category_ids"]
            assert dataset.split(split).read_image(index).shape[:2] == (image["height"], image["width"])
    first = dataset.categories[0]
    assert (first.frequency, first.synset) == ("c", "aerosol.n.02")
    assert first.synonyms == ("aerosol_can", "spray_can")
    assert first.extra is not None
    assert first.extra["instance_count"] == 109


VAL = "annotations/lvis_v1_val.json"


def keys(root: Path, tmp_path: Path, options: dict[str, Any]) -> list[str]:
    return list(lvis_v1.splits(Raw(root, tmp_path / "scratch"), lvis_v1.Options(**options))["minival"])


def test_minival_is_read_from_its_file_or_taken_out_of_val(world: Path, tmp_path: Path) -> None:
    published = orjson.loads((world / "annotations/lvis_v1_minival_inserted_image_name.json").read_bytes())
    ids = [image["id"] for image in published["images"]]
    expected = [str(number) for number in ids]
    assert len(expected) == 2  # of four
    assert keys(world, tmp_path, {"splits": ["minival"]}) == expected
    of_val = {"splits": ["minival"], "annotations": {"minival": VAL}}
    assert keys(world, tmp_path, {**of_val, "photos_in": {"minival": "val2017"}}) == expected
    lists = tmp_path / "lists"
    for name, content in {"ids.json": ids[::-1], "coco.json": published}.items():
        lists.mkdir(exist_ok=True)
        (lists / name).write_bytes(orjson.dumps(content))
        listed = {**of_val, "image_ids": {"minival": str(lists / name)}}
        assert keys(world, tmp_path, listed) == expected
    converted = {}
    for name, options in {
        "file": {"splits": ["minival"]},
        "val": {**of_val, "photos_in": {"minival": "val2017"}},
    }.items():
        convert("lvis_v1", world, tmp_path / name, options=options)
        split = Dataset.open(tmp_path / name, image_root=world).split("minival")
        converted[name] = [
            (split[i].file_name, split[i].ann_ids.tolist(), split[i].neg_category_ids.tolist())
            for i in range(len(split))
        ]
    assert converted["file"] == converted["val"]


def test_only_the_photos_of_the_part_have_to_be_there(world: Path, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/lvis_v1_val.json").symlink_to(world / VAL)
    (root / "val2017").symlink_to(world / "val2017")
    of_val: dict[str, Any] = {"splits": ["minival"], "annotations": {"minival": VAL}}
    with pytest.raises(SourceError, match="photos are missing: train2017/"):
        keys(root, tmp_path, of_val)
    assert len(keys(root, tmp_path, {**of_val, "photos_in": {"minival": "val2017"}})) == 2


def test_a_list_of_ids_is_among_the_files_of_the_source(world: Path) -> None:
    (world / "annotations/ids.json").write_text("[1]")
    options = lvis_v1.Options(
        splits=("minival",), annotations={"minival": VAL}, image_ids={"minival": "annotations/ids.json"}
    )
    assert lvis_v1.files(world, options) == ["annotations/ids.json", VAL]
    with pytest.raises(SourceError, match=r"missing: annotations/no\.json"):
        lvis_v1.files(world, options.model_copy(update={"image_ids": {"minival": "annotations/no.json"}}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "no image of the split minival"),
        ("{}", "holds no list of image ids"),
        ("[]", "holds no list of image ids"),
        ('["a"]', "holds no list of image ids"),
        ("nothing", "holds no list of image ids"),
        ("FIRST, 1", "only 1 of 2 images of the split minival"),
    ],
)
def test_a_list_of_other_images_is_refused(world: Path, tmp_path: Path, content: str, message: str) -> None:
    first = orjson.loads((world / VAL).read_bytes())["images"][0]["id"]
    text = f"[{content.replace('FIRST', str(first))}]" if "FIRST" in content else content
    (tmp_path / "ids.json").write_text(text)
    options = {"annotations": {"minival": VAL}, "image_ids": {"minival": str(tmp_path / "ids.json")}}
    with pytest.raises(SourceError, match=message):
        keys(world, tmp_path, options)


def test_without_the_file_of_minival_it_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="photos_in") as caught:
        lvis_v1.files(tmp_path, lvis_v1.Options(splits=("minival",)))
    assert "lvis_v1_minival_inserted_image_name.json" in str(caught.value)


@pytest.mark.parametrize(
    ("split", "fields", "expected"),
    [
        ("train", {"coco_url": "http://x.org/val2017/000000000139.jpg"}, "val2017/000000000139.jpg"),
        ("val", {"coco_url": "http://x.org/train2017/000000155379.jpg"}, "train2017/000000155379.jpg"),
        ("val", {"file_name": "COCO_val2014_000000266409.jpg"}, "val2017/000000266409.jpg"),
        ("train", {"file_name": "COCO_train2014_000000000009.jpg"}, "train2017/000000000009.jpg"),
        ("minival", {"file_name": "000000397133.jpg"}, "val2017/000000397133.jpg"),
        ("minival", {"file_name": "val2017/000000397133.jpg"}, "val2017/000000397133.jpg"),
    ],
)
def test_where_the_photo_lies(tmp_path: Path, split: str, fields: dict[str, str], expected: str) -> None:
    image: dict[str, Any] = {"id": 5, "height": 4, "width": 6, **fields}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = lvis_v1.Options(annotations={split: "a.json"}, images="none")
    (record,) = lvis_v1.read(Raw(tmp_path, tmp_path / "scratch"), split, ["5"], options)
    assert record.image is not None
    assert record.image.file_name == expected


@pytest.mark.skipif(not OLD.is_dir(), reason="real samples are not here")
def test_a_real_file_of_the_first_version_comes_back_exactly(tmp_path: Path) -> None:
    options = {"annotations": {"val": "lvis_val_100.json"}, "images": "none"}
    counts = convert("lvis_v1", OLD, tmp_path / "dataset", options=options)
    assert (counts["images"], counts["objects"], counts["findings"]) == (100, 977, 0)
    export(Dataset.open(tmp_path / "dataset"), "val", tmp_path / "out.json", ids="source")
    expected = orjson.loads((OLD / "lvis_val_100.json").read_bytes())
    assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected


def test_labels_that_no_category_has_are_kept_and_found(tmp_path: Path) -> None:
    image = {"id": 5, "height": 4, "width": 6, "file_name": "a/5.jpg", "neg_category_ids": [1, 8]}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = lvis_v1.Options(annotations={"val": "a.json"}, images="none")
    (record,) = lvis_v1.read(Raw(tmp_path, tmp_path / "scratch"), "val", ["5"], options)
    assert record.image is not None
    assert record.image.neg_category_ids == ()
    assert record.image.extra is not None
    assert record.image.extra["neg_category_ids"] == [1, 8]
    assert [finding.reason for finding in record.findings] == ["bad-labels"]


def test_workers_and_shards_change_nothing(tmp_path: Path) -> None:
    write_lvis_like(tmp_path / "train.json", 0.002)
    options = {"annotations": {"train": "train.json"}, "images": "none"}
    for name, workers, size in (("one", 0, 200), ("two", 2, 37)):
        convert("lvis_v1", tmp_path, tmp_path / name, options=options, workers=workers, shard_records=size)
    for path in (tmp_path / "one").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    export(Dataset.open(tmp_path / "two"), "train", tmp_path / "out.json", ids="source")
    expected = orjson.loads((tmp_path / "train.json").read_bytes())
    assert orjson.loads((tmp_path / "out.json").read_bytes()) == expected


def test_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"missing: annotations/lvis_v1_train\.json, annotations/lvis_v1_val"
    ):
        lvis_v1.files(tmp_path, lvis_v1.Options())
    with pytest.raises(SourceError, match="no annotation file for split 'test'"):
        lvis_v1.files(tmp_path, lvis_v1.Options(splits=("test",)))
