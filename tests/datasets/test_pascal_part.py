from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partseg.datasets import pascal_part
from partseg.datasets.convert import convert
from partseg.datasets.source import Raw
from partseg.errors import LayoutError, SourceError
from partseg.layout import Dataset, Record, rle_to_mask
from partseg.layout.checks import audit
from partseg.layout.export.coco import export, to_coco
from tests.datasets.conftest import SHARED

GOLDEN = SHARED / "golden" / "pascal_part_convert" / "a"
SAMPLE = SHARED / "samples" / "pascal_part"
KEY = "2008_000001"
DEFAULT = pascal_part.Options()
TRAIN = pascal_part.Options(splits=("train",))


def read(root: Path, key: str) -> Record:
    (record,) = pascal_part.read(Raw(root, root), "train", [key], DEFAULT)
    return record


def test_the_table_has_93_parts_and_20_objects_in_base_and_novel() -> None:
    table = pascal_part.categories(Raw(Path(), Path()), DEFAULT)
    kinds = Counter((item.kind, item.group) for item in table)
    assert kinds == {
        ("part", "base"): 77,
        ("part", "novel"): 16,
        ("object", "base"): 18,
        ("object", "novel"): 2,
    }
    by_id = {item.category_id: item for item in table}
    assert [by_id[number].name for number in (1, 19, 93)] == [
        "aeroplane:body",
        "bus:license plate",
        "sheep:torso",
    ]
    for item in table:
        if item.parent_id is not None:
            assert item.name.split(":")[0] == by_id[item.parent_id].name


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    if not GOLDEN.is_dir() or not SAMPLE.is_dir():
        pytest.skip(
            "the golden JSON files and the sample of real Pascal-Part files lie beside the repository"
        )
    folder = tmp_path_factory.mktemp("sample")
    root = folder / "raw"
    lists = root / "VOCdevkit/VOC2010/ImageSets/Main"
    lists.mkdir(parents=True)
    (root / "Annotations_Part").symlink_to(SAMPLE / "Annotations_Part")
    (root / "VOCdevkit/VOC2010/JPEGImages").symlink_to(SAMPLE / "VOCdevkit/VOC2010/JPEGImages")
    order = json.loads((GOLDEN / "inputs.json").read_text())["split_order"]
    (lists / "train.txt").write_text("\n".join(order))
    convert("pascal_part", root, folder / "out", options={"splits": ["train"]})
    return Dataset.open(folder / "out", image_root=root, cache=folder / "cache")


@pytest.mark.parametrize(
    ("golden", "base_only", "single_object"),
    [
        ("mat2json_full", False, False),
        ("mat2json_base", True, False),
        ("one_full", False, True),
        ("one_base", True, True),
    ],
)
def test_real_files_export_to_the_bytes_of_vlpart(
    sample: Dataset, tmp_path: Path, golden: str, base_only: bool, single_object: bool
) -> None:
    out = tmp_path / "out.json"
    export(sample, "train", out, compat="vlpart", base_only=base_only, single_object=single_object)
    assert out.read_bytes() == (GOLDEN / f"{golden}.json").read_bytes()


def test_real_files_keep_every_object_and_true_values(sample: Dataset) -> None:
    names = {item.category_id: item.name for item in sample.categories}
    found = Counter(
        names[category]
        for record in sample.split("train")
        for category in record.category_ids[record.parent_rows < 0].tolist()
    )
    listed = json.loads((GOLDEN / "inputs.json").read_text())["objects"].values()
    expected = Counter(name for objects in listed for name in objects)
    assert found["dining table"] == expected["table"] == 1
    assert found["tv monitor"] == expected["tvmonitor"]
    assert found["person"] == expected["person"]
    assert found.total() == expected.total()
    assert sample.manifest.findings == {"part-without-category": 34}
    assert audit(sample) == []
    record = sample.split("train")[0]
    masks = [rle_to_mask(rle, record.height, record.width) for rle in record.rles if rle]
    assert record.areas.tolist() == [mask.sum() for mask in masks]
    assert sample.split("train").read_image(0).shape == (record.height, record.width, 3)


def test_parts_follow_their_object_and_keep_their_raw_name(world: Path) -> None:
    record = read(world, KEY)
    assert record.image is not None
    objects = [row for row in record.annotations if row.parent is None]
    assert [row.category_id for row in objects][:1] == [101]
    wings = [row for row in record.annotations if row.category_id == 2]
    assert sorted(row.extra["part_name"] for row in wings if row.extra) == ["lwing", "rwing"]


def test_a_known_part_without_category_is_a_finding(one_object: Callable[..., Path]) -> None:
    root = one_object("bus", ("frontside", "wheel_12"))
    record = read(root, KEY)
    assert [row.category_id for row in record.annotations] == [106, 24]
    assert [(item.reason, item.image_dropped) for item in record.findings] == [
        ("part-without-category", False)
    ]


def test_empty_masks_are_repaired_or_found(one_object: Callable[..., Path]) -> None:
    repaired = read(one_object(object_mask=False), KEY)
    assert [item.reason for item in repaired.findings] == ["object-mask-repaired"]
    assert [row.area for row in repaired.annotations] == [36.0, 36.0]
    empty = read(one_object(part_mask=False), KEY)
    assert [item.reason for item in empty.findings] == ["empty-mask"]
    assert len(empty.annotations) == 1


def test_masks_that_do_not_fit_the_image_are_an_error(one_object: Callable[..., Path]) -> None:
    with pytest.raises(
        SourceError, match=r"2008_000001\.mat: a mask of 2008_000001 is 32x32.*image is 40x40"
    ):
        read(one_object(image_size=40), KEY)


def test_the_classes_of_the_objects_are_labels_of_the_image(one_object: Callable[..., Path]) -> None:
    record = read(one_object("bus", ("wheel_1",)), KEY)
    assert record.image is not None
    assert record.image.pos_category_ids == (106,)


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("unicorn", "head", r"2008_000001\.mat: unknown object class 'unicorn'.*source_names"),
        ("dog", "flipper", r"2008_000001\.mat: unknown part name 'flipper' of a dog.*raw_parts of dog"),
    ],
)
def test_unknown_names_say_file_and_remedy(
    one_object: Callable[..., Path], name: str, part: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        read(one_object(name, (part,)), KEY)


@pytest.mark.parametrize("keep", [0, 60, 200, 0.5, 0.95])
def test_a_truncated_annotation_is_named(raw: Path, keep: float) -> None:
    path = raw / "Annotations_Part" / f"{KEY}.mat"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(SourceError, match=rf"{KEY}\.mat: the annotation is damaged .*extract"):
        read(raw, KEY)


def test_an_annotation_of_another_image_is_refused(raw: Path) -> None:
    folder = raw / "Annotations_Part"
    (folder / f"{KEY}.mat").write_bytes((folder / "2008_000002.mat").read_bytes())
    with pytest.raises(SourceError, match="holds the annotation of 2008_000002"):
        read(raw, KEY)


def test_a_damaged_image_is_named(raw: Path) -> None:
    (raw / f"VOCdevkit/VOC2010/JPEGImages/{KEY}.jpg").write_bytes(b"half")
    with pytest.raises(SourceError, match=rf"{KEY}\.jpg: the image is damaged"):
        read(raw, KEY)


def test_a_wrong_folder_lists_everything_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        pascal_part.files(tmp_path, DEFAULT)
    for expected in (
        "Annotations_Part/*.mat",
        "VOCdevkit/VOC2010/JPEGImages/*.jpg",
        "VOCdevkit/VOC2010/ImageSets/Main/train.txt",
        "VOCdevkit/VOC2010/ImageSets/Main/val.txt",
    ):
        assert expected in str(error.value)


@pytest.mark.parametrize("path", [f"Annotations_Part/{KEY}.mat", f"VOCdevkit/VOC2010/JPEGImages/{KEY}.jpg"])
def test_a_missing_file_is_an_error_or_a_finding_as_wanted(raw: Path, tmp_path: Path, path: str) -> None:
    (raw / path).unlink()
    with pytest.raises(SourceError, match=f"missing: {Path(path).name}.*allow_missing"):
        pascal_part.splits(Raw(raw, raw), DEFAULT)
    with pytest.raises(SourceError, match=f"missing: {path}"):
        read(raw, KEY)
    counts = convert("pascal_part", raw, tmp_path / "out", options={"allow_missing": True})
    assert (counts["images"], counts["dropped"]) == (30, 1)
    split = Dataset.open(tmp_path / "out").split("train")
    assert split.findings().to_pylist()[0]["reason"] == "files-missing"


def test_an_image_listed_twice_is_refused(raw: Path) -> None:
    (raw / "VOCdevkit/VOC2010/ImageSets/Main/train.txt").write_text(f"{KEY}\n{KEY}\n")
    with pytest.raises(SourceError, match="listed twice"):
        pascal_part.splits(Raw(raw, raw), TRAIN)


def test_files_are_what_a_conversion_reads(raw: Path) -> None:
    (raw / "Annotations_Part/unlisted.mat").write_bytes(b"")
    xml = raw / f"VOCdevkit/VOC2010/Annotations/{KEY}.xml"
    xml.parent.mkdir()
    xml.write_text("<annotation/>")
    found = pascal_part.files(raw, TRAIN)
    assert len(found) == 2 * 20 + 1 + 1
    assert found == sorted(found)
    assert all((raw / path).is_file() for path in found)
    assert not any("unlisted" in path for path in found)


def test_voc_objects_decide_about_single_object_images_where_they_are_known(
    raw: Path, tmp_path: Path
) -> None:
    folder = raw / "VOCdevkit/VOC2010/Annotations"
    folder.mkdir()
    one = "<object><name>aeroplane</name></object>"
    (folder / f"{KEY}.xml").write_text(f"<annotation>{one}{one}</annotation>")
    (folder / "2008_000002.xml").write_text(f"<annotation>{one}</annotation>")
    convert("pascal_part", raw, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    export(dataset, "train", tmp_path / "one.json", compat="vlpart", single_object=True)
    ids = [image["id"] for image in json.loads((tmp_path / "one.json").read_text())["images"]]
    assert 2008000001 not in ids
    assert 2008000002 in ids
    (folder / f"{KEY}.xml").write_text("<annotation>")
    with pytest.raises(SourceError, match=rf"{KEY}\.xml: the annotation is damaged"):
        read(raw, KEY)


def test_the_plain_export_has_true_values_and_links(world: Path, tmp_path: Path) -> None:
    convert("pascal_part", world, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    full, base = to_coco(dataset, "val"), to_coco(dataset, "val", base_only=True)
    assert len(full["images"]) == len(base["images"]) == 11
    assert {item["name"] for item in full["categories"]} - {item["name"] for item in base["categories"]} >= {
        "dog",
        "bus",
        "dog:head",
    }
    assert len(base["annotations"]) < len(full["annotations"])
    by_id = {item["id"]: item for item in full["annotations"]}
    part = next(item for item in full["annotations"] if "parent_id" in item)
    assert by_id[part["parent_id"]]["image_id"] == part["image_id"]
    size = part["segmentation"]["size"]
    mask = rle_to_mask(part["segmentation"]["counts"].encode(), *size)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    assert part["bbox"] == [
        columns[0],
        rows[0],
        columns[-1] - columns[0] + 1,
        rows[-1] - rows[0] + 1,
    ]
    assert part["area"] == mask.sum()
    with pytest.raises(LayoutError, match="no split 'test'"):
        to_coco(dataset, "test")
