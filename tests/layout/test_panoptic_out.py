from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from partseg.datasets.convert import convert
from partseg.errors import LayoutError, PartsegError
from partseg.layout import Dataset, label_map_to_runs, rle_decode_many
from partseg.layout.export.panoptic import write_coco_panoptic, write_panoptic_parts
from partseg.layout.export.panopticapi import to_detection, to_semantic
from partseg.layout.export.semantic import write_semantic
from partseg.layout.export.tapps import write_tapps
from partseg.layout.label_images import (
    map_to_runs,
    read_colour_ids,
    read_label_image,
    runs_to_rows,
    write_colour_ids,
    write_int32_tiff,
    write_png,
)
from partseg.layout.runs import relabel_runs
from partseg.synthetic.worlds import make_up

SHARED = Path(__file__).parents[2].parent / "shared"
SAMPLE = SHARED / "samples/coco"
PREPARED = SHARED / "golden/partpq/a"
CONVERTERS = SHARED / "golden/pq/a/converters"
VAL = {"annotations": {"val2017": "annotations/panoptic_val2017.json"}}

Convert = Callable[..., Dataset]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Raw folders, each made up once."""
    root = tmp_path_factory.mktemp("worlds")

    def raw(source: str) -> Path:
        if not (root / source).is_dir():
            make_up(source, root / source, {"train": 5, "val": 2, "size": 64})
        return root / source

    return raw


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    def build(source: str, raw: Path, options: Mapping[str, Any] | None = None) -> Dataset:
        out = tmp_path / f"{source}-dataset"
        convert(source, raw, out, options={"images": "none", **(options or {})})
        return Dataset.open(out, image_root=raw, cache=tmp_path / "cache")

    return build


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def check_round_trip(dataset: Dataset, split: str, raw: Path, name: str, out: Path) -> None:
    write_coco_panoptic(dataset, split, out, name=name)
    written, source = (orjson.loads((folder / f"{name}.json").read_bytes()) for folder in (out, raw))
    assert written == source
    for annotation in source["annotations"]:
        expected = pixels(raw / name / annotation["file_name"])
        assert (pixels(out / name / annotation["file_name"]) == expected).all()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_panoptic_comes_out_as_it_went_in(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path, split: str
) -> None:
    raw = worlds("coco_panoptic")
    dataset = converted("coco_panoptic", raw)
    check_round_trip(dataset, split, raw / "annotations", f"panoptic_{split}", tmp_path / "out")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")
def test_the_real_coco_sample_comes_out_as_it_went_in(converted: Convert, tmp_path: Path) -> None:
    dataset = converted("coco_panoptic", SAMPLE, VAL)
    check_round_trip(dataset, "val2017", SAMPLE / "annotations", "panoptic_val2017", tmp_path / "out")


def test_unmodelled_and_missing_fields_come_out_as_they_went_in(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    raw = worlds("coco_panoptic")
    name = "panoptic_val2017"
    content = orjson.loads((raw / f"annotations/{name}.json").read_bytes())
    first, second = content["annotations"][:2]
    first["annotator"] = {"name": "Ada", "rounds": [1, 2.5]}
    first["segments_info"][0]["checked"] = True
    del first["segments_info"][0]["iscrowd"]
    second["segments_info"] = []
    content["images"][0]["weather"] = "rain"
    content["categories"][0]["isthing"] = 1
    content["categories"][0]["short"] = "p"
    del content["categories"][1]["color"]
    content["annotations"].append(content["annotations"].pop(0))
    copy = tmp_path / "raw"
    (copy / "annotations").mkdir(parents=True)
    (copy / f"annotations/{name}").symlink_to(raw / f"annotations/{name}")
    (copy / f"annotations/{name}.json").write_bytes(orjson.dumps(content))
    dataset = converted("coco_panoptic", copy, VAL)
    check_round_trip(dataset, "val2017", copy / "annotations", name, tmp_path / "out")


@pytest.mark.parametrize("source", ["pascal_pp", "cityscapes_pp"])
def test_panoptic_parts_come_out_as_they_went_in(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path, source: str
) -> None:
    raw = worlds(source)
    dataset = converted(source, raw)
    for split in dataset.splits:
        out = tmp_path / split
        write_panoptic_parts(dataset, split, out)
        written = sorted(out.rglob("*.tif"))
        assert len(written) == len(dataset.split(split))
        for path in written:
            expected = pixels(raw / path.relative_to(out))
            assert (pixels(path) == expected).all()
            assert pixels(path).dtype == np.int32


def test_parts_belong_to_their_object_in_coco_panoptic(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    dataset = converted("pascal_pp", worlds("pascal_pp"))
    write_coco_panoptic(dataset, "training", tmp_path / "out")
    content = orjson.loads((tmp_path / "out/panoptic_training.json").read_bytes())
    for annotation in content["annotations"]:
        ids = read_colour_ids(tmp_path / "out/panoptic_training" / annotation["file_name"]).to_map()
        segments = annotation["segments_info"]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in segments}
        assert all((ids == segment["id"]).sum() == segment["area"] for segment in segments)


def test_uids_do_not_come_out_of_a_dataset_without_them(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    dataset = converted("coco_panoptic", worlds("coco_panoptic"))
    for write in (
        lambda: write_panoptic_parts(dataset, "val2017", tmp_path / "out"),
        lambda: write_tapps(dataset, tmp_path / "out"),
    ):
        with pytest.raises(LayoutError, match="no panoptic-parts maps"):
            write()
    assert not (tmp_path / "out").exists()


def test_a_failed_export_leaves_nothing(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    dataset = converted("pascal_pp", worlds("pascal_pp"))
    nowhere = Dataset.open(dataset.folder, image_root=tmp_path / "nowhere", cache=tmp_path / "cache")
    with pytest.raises(PartsegError, match="photo is missing"):
        write_tapps(nowhere, tmp_path / "export" / "out")
    assert not list((tmp_path / "export").iterdir())


@pytest.mark.parametrize(("ids", "value"), [("category", 15), ("source", 15), ("train", 14)])
def test_semantic_maps_hold_the_chosen_ids(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path, ids: Any, value: int
) -> None:
    uids = np.array([[15001, 15001_01, 15, 0], [22, 84, 84, 0]], np.int32)
    dataset = converted("pascal_pp", written_map(tmp_path, uids), {"splits": ["training"]})
    write_semantic(dataset, "training", tmp_path / "out", ids=ids)
    sky, basket = (50, 255) if ids == "train" else (84, 22)  # nobody evaluates baskets
    expected = [[value, value, value, 255], [basket, sky, sky, 255]]
    assert pixels(tmp_path / "out/JPEGImages/2008_000002.png").tolist() == expected


def written_map(folder: Path, uids: np.ndarray) -> Path:
    path = folder / "made/labels/training/2008_000002.tif"
    path.parent.mkdir(parents=True)
    Image.fromarray(uids).save(path)
    return folder / "made"


def test_part_maps_hold_parts_alone_or_over_their_objects(converted: Convert, tmp_path: Path) -> None:
    uids = np.array([[15001, 15001_01, 15, 0, 84]], np.int32)
    dataset = converted("pascal_pp", written_map(tmp_path, uids), {"splits": ["training"]})
    write_semantic(dataset, "training", tmp_path / "part", kind="part")
    write_semantic(dataset, "training", tmp_path / "both", kind="both", ignore=0)
    name = "JPEGImages/2008_000002.png"
    assert pixels(tmp_path / "part" / name).tolist() == [[255, 1501, 255, 255, 255]]
    assert pixels(tmp_path / "both" / name).tolist() == [[15, 1501, 15, 0, 84]]
    table = orjson.loads((tmp_path / "both/categories.json").read_bytes())
    names = {item["id"]: item["name"] for item in table["categories"]}
    assert (names[15], names[1501]) == ("person", "person:head")


def test_semantic_maps_are_painted_where_there_is_no_panoptic_map(tmp_path: Path) -> None:
    make_up("pascal_part", tmp_path / "raw", {"train": 3, "val": 1, "size": 64})
    convert("pascal_part", tmp_path / "raw", tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset", cache=tmp_path / "cache")
    split = dataset.split("train")
    write_semantic(dataset, "train", tmp_path / "both", kind="both", ignore=0)
    for record in split:
        found = pixels((tmp_path / "both" / record.file_name).with_suffix(".png"))
        order = sorted(
            range(len(record.rles)), key=lambda row: (record.parent_rows[row] >= 0, -record.areas[row])
        )
        expected = np.zeros((record.height, record.width), np.int64)
        for row in order:
            (mask,) = masks(record, [row])
            expected[mask] = record.category_ids[row]
        assert (found == expected).all()


def masks(record: Any, rows: list[int]) -> np.ndarray:
    return rle_decode_many([record.rles[row] for row in rows], record.height, record.width)


def test_a_value_to_ignore_that_is_a_category_is_refused(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    dataset = converted("coco_panoptic", worlds("coco_panoptic"))
    with pytest.raises(LayoutError, match="187 cannot mark"):
        write_semantic(dataset, "val2017", tmp_path / "out", ignore=187)


@pytest.mark.skipif(not (CONVERTERS.is_dir() and SAMPLE.is_dir()), reason="golden files are not here")
def test_equal_to_panopticapi(converted: Convert, tmp_path: Path) -> None:
    dataset = converted("coco_panoptic", SAMPLE, VAL)
    for name, build in (("panoptic2detection", to_detection), ("panoptic2semantic", to_semantic)):
        golden = json.loads((CONVERTERS / f"{name}.json").read_text())
        images = [item["id"] for item in golden["images"]]
        found = build(dataset, "val2017")  # the sample has a third image, at the end
        assert found["images"][: len(images)] == golden["images"]
        kept = [item for item in found["annotations"] if item["image_id"] in images]
        assert kept == golden["annotations"]
        for key in ("info", "licenses", "categories"):
            assert found[key] == golden[key]
    write_semantic(dataset, "val2017", tmp_path / "out", ids="source", ignore=0)
    with np.load(CONVERTERS / "semantic_png.npz") as golden:
        for name in golden.files:
            assert (pixels(tmp_path / "out/val2017" / name) == golden[name]).all()


def test_things_alone_and_things_as_one(
    worlds: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    dataset = converted("coco_panoptic", worlds("coco_panoptic"))
    things = to_detection(dataset, "train2017", things_only=True)
    names = {item["id"]: item["name"] for item in things["categories"]}
    assert names
    assert not any(name.endswith("merged") for name in names.values())
    assert {item["category_id"] for item in things["annotations"]} <= set(names)
    other = to_semantic(dataset, "train2017", things_other=True)
    assert other["categories"][-1] == {"id": 183, "name": "other", "supercategory": "other"}
    areas = sum(item["area"] for item in things["annotations"])
    assert sum(item["area"] for item in other["annotations"] if item["category_id"] == 183) == areas


@pytest.mark.skipif(not PREPARED.is_dir(), reason="golden files are not here")
@pytest.mark.parametrize(
    ("source", "folder", "options"),
    [
        ("pascal_pp", "pascal", {"parts": 57}),
        ("pascal_pp", "pascal", {"parts": 107}),
        ("cityscapes_pp", "cityscapes", {}),
    ],
)
def test_equal_to_what_tapps_prepares(
    converted: Convert, tmp_path: Path, source: str, folder: str, options: dict[str, Any]
) -> None:
    maps = {"pascal": "labels", "cityscapes": "gtFinePanopticParts"}[folder]
    with np.load(PREPARED / "prepare_inputs.npz") as inputs:
        for name in inputs.files:
            if name.startswith(f"{folder}/"):
                path = tmp_path / "raw" / maps / f"{name.partition('/')[2]}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(inputs[name]).save(path)
    dataset = converted(source, tmp_path / "raw", options)
    out = tmp_path / "out"
    write_tapps(dataset, out, photos="none")
    only_parts = options.get("parts") == 107

    def expected(name: str) -> bool:
        return name.startswith(f"{folder}/") and ("parts_107" in name) == only_parts

    with np.load(PREPARED / "prepare_outputs.npz") as golden:
        wanted = {name for name in golden.files if expected(name)}
        assert {f"{folder}/{path.relative_to(out).with_suffix('')}" for path in out.rglob("*.png")} == wanted
        for name in wanted:
            found = pixels(out / f"{name.partition('/')[2]}.png")
            assert found.shape == golden[name].shape
            assert (found == golden[name]).all()
    tables = json.loads((PREPARED / "prepare_outputs.json").read_text())
    wanted = {name for name in tables if expected(name)}
    assert {f"{folder}/{path.relative_to(out)}" for path in out.rglob("*.json")} == wanted
    for name in wanted:
        found = json.loads((out / name.partition("/")[2]).read_text())
        assert in_order(found) == in_order(tables[name])


def in_order(content: dict[str, Any]) -> dict[str, Any]:
    """TAPPS lists images as the file system does."""
    keys = {"images": "id", "annotations": "image_id", "categories": "id"}
    return {name: sorted(rows, key=lambda row: row[keys[name]]) for name, rows in content.items()}


label_maps = arrays(
    np.int64, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 5)
).map(lambda array: array * 3_355_443)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(label_maps)
def test_label_maps_survive_their_files(tmp_path: Path, labels: np.ndarray) -> None:
    runs = map_to_runs(labels)
    assert (runs.to_map() == labels).all()
    assert (runs_to_rows(runs, runs.labels) == labels).all()
    write_colour_ids(tmp_path / "a.png", runs)
    assert (read_colour_ids(tmp_path / "a.png").to_map() == labels).all()
    write_int32_tiff(tmp_path / "a.tif", runs)
    assert (read_label_image(tmp_path / "a.tif").to_map() == labels).all()
    for kind in (np.uint8, np.uint16):
        small = (labels % 251).astype(kind)
        write_png(tmp_path / "b.png", small)
        assert (pixels(tmp_path / "b.png") == small).all()
        assert (read_label_image(tmp_path / "b.png").to_map() == small).all()


@given(label_maps)
def test_runs_that_become_equal_are_joined(labels: np.ndarray) -> None:
    runs = label_map_to_runs(labels)
    folded = relabel_runs(runs, runs.labels % 2)
    expected = label_map_to_runs(labels % 2)
    assert (folded.lengths == expected.lengths).all()
    assert (folded.labels == expected.labels).all()
