from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.errors import FormatTooNew, FormatTooOld, LayoutError, SourceError
from partseg.files import sha256_file
from partseg.layout import AnnotationRow, Dataset, ImageRow, Record, Split, encode
from tests.layout.conftest import CATEGORIES, dropped, record, write


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def open_toy(toy: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(toy, image_root=tmp_path / "raw", cache=tmp_path / "cache")


def test_records_come_back_with_objects_before_their_parts(toy: Path, tmp_path: Path) -> None:
    dataset = open_toy(toy, tmp_path)
    assert dataset.splits == ("train", "val")
    assert dataset.categories == CATEGORIES
    split = dataset.split("train")
    assert [image.source_key for image in split] == ["a", "c"]
    given, read = record("c", 2), split[1]
    order = [0, 2, 4, 1, 3]
    rows = [given.annotations[index] for index in order]
    assert read.category_ids.tolist() == [row.category_id for row in rows]
    assert read.parent_rows.tolist() == [-1, 0, 0, -1, 3]
    assert read.ann_ids.tolist() == [6, 7, 8, 9, 10]
    assert read.image_id == 2
    assert read.rles == [row.rle for row in rows]
    assert read.boxes_xywh.tolist() == [list(row.bbox_xywh) for row in rows]
    assert read.areas.tolist() == [row.area for row in rows]
    assert read.is_crowd.tolist() == [False, False, False, True, False]
    assert np.isnan(read.scores[:4]).all()
    assert read.scores[4] == 0.25
    assert read.origin == ["human"] * 5
    assert read.pos_category_ids.tolist() == [11, 12]
    assert (read.height, read.width, read.file_name) == (20, 30, "img/c.jpg")
    assert split.table("annotations")["extra"].to_pylist()[6] == '{"part_name":"head"}'
    assert split.table("annotations")["attributes"].to_pylist()[7] == [3, 4]


def test_ids_are_unique_over_the_splits_and_start_at_one(toy: Path, tmp_path: Path) -> None:
    dataset = open_toy(toy, tmp_path)
    ids = [i for name in dataset.splits for image in dataset.split(name) for i in image.ann_ids.tolist()]
    assert ids == list(range(1, 16))


def test_every_source_record_is_an_image_or_a_finding(toy: Path, tmp_path: Path) -> None:
    dataset = open_toy(toy, tmp_path)
    entry = dataset.manifest.splits["train"]
    assert (entry.source_records, entry.images.rows, entry.dropped) == (3, 2, 1)
    assert (entry.objects, entry.parts) == (4, 6)
    assert dataset.manifest.findings == {"too-large": 1}
    finding = dataset.split("train").findings().to_pylist()
    assert finding == [{"source_key": "b", "reason": "too-large", "message": "big", "image_dropped": True}]


def test_a_record_cannot_vanish(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="finding with image_dropped"):
        write(tmp_path / "out", {"train": [Record(image=None)]})
    with pytest.raises(LayoutError, match="3 source records, but 1 images and 1 dropped"):
        write(tmp_path / "out", {"train": [record("a"), dropped("b")]}, source_records={"train": 3})
    assert list(tmp_path.iterdir()) == []


def test_the_same_records_give_the_same_bytes_however_they_arrive(tmp_path: Path) -> None:
    records = [record(f"k{index}", index) for index in range(7)]
    first = write(tmp_path / "one", {"train": records})
    second = tmp_path / "two"
    from partseg.layout import DatasetWriter

    with DatasetWriter(
        second,
        name="toy",
        categories=CATEGORIES,
        converter={"name": "toy", "settings": {}},
        image_source="toy_raw",
    ) as writer:
        writer.write_batch("train", encode(records[:3]))
        writer.write("train", records[3])
        writer.write_batch("train", encode(records[4:]))
    assert files_of(first) == files_of(second)


def test_row_groups_do_not_depend_on_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partseg.layout.table_files.ROW_GROUP", 8)
    records = [record(f"k{index}", index) for index in range(9)]
    first = write(tmp_path / "one", {"train": records})
    monkeypatch.setattr("partseg.layout.writer._BUFFERED_RECORDS", 2)
    second = write(tmp_path / "two", {"train": records})
    assert files_of(first) == files_of(second)
    image = Dataset.open(second, cache=tmp_path / "cache").split("train")[8]
    assert image.parent_rows.tolist() == [-1, 0, 0, -1, 3]


def test_an_image_without_annotations_and_a_box_without_a_mask(tmp_path: Path) -> None:
    plain = ImageRow(file_name="x.jpg", height=4, width=4, source_key="x")
    box = AnnotationRow(category_id=11, bbox_xywh=(0.0, 0.0, 2.0, 2.0), area=4.0)
    out = write(tmp_path / "out", {"train": [Record(image=plain), Record(image=plain, annotations=(box,))]})
    split = Dataset.open(out, cache=tmp_path / "cache").split("train")
    assert len(split[0].ann_ids) == 0
    assert split[0].rles == []
    assert split[1].rles == [None]


def test_an_empty_split_can_be_opened(tmp_path: Path) -> None:
    out = write(tmp_path / "out", {}, source_records={"val": 0})
    split = Dataset.open(out, cache=tmp_path / "cache").split("val")
    assert len(split) == 0
    with pytest.raises(IndexError):
        split[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (AnnotationRow(category_id=99, bbox_xywh=(0, 0, 1, 1), area=1), "unknown category"),
        (AnnotationRow(category_id=1, bbox_xywh=(0, 0, float("nan"), 1), area=1), "not finite"),
        (AnnotationRow(category_id=1, bbox_xywh=(0, 0, -1, 1), area=1), "negative size"),
        (AnnotationRow(category_id=1, bbox_xywh=(0, 0, 1, 1), area=1, parent=0), "not an object before it"),
    ],
)
def test_broken_rows_are_refused_with_their_record(tmp_path: Path, row: AnnotationRow, message: str) -> None:
    image = ImageRow(file_name="x.jpg", height=4, width=4, source_key="x17")
    with pytest.raises(LayoutError, match=f"x17.*{message}"):
        write(tmp_path / "out", {"train": [Record(image=image, annotations=(row,))]})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_overwritten(toy: Path) -> None:
    with pytest.raises(LayoutError, match="already exists"):
        write(toy, {"train": [record("a")]})


def test_a_killed_writer_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.layout.conftest import *;\n"
        "w = DatasetWriter(Path(sys.argv[1]), name='t', categories=CATEGORIES, converter={},"
        " image_source='r').__enter__()\n"
        "w.write('train', record('a')); w.write('val', record('b'))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert not out.exists()
    alive = list(tmp_path.iterdir())
    write(tmp_path / "other", {"train": [record("a")]})
    assert set(alive) <= set(tmp_path.iterdir())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not out.exists()
    write(out, {"train": [record("a")]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def set_version(toy: Path, version: str, **fields: str) -> None:
    import orjson

    content = orjson.loads((toy / "dataset.json").read_bytes())
    (toy / "dataset.json").write_bytes(orjson.dumps({**content, "format_version": version, **fields}))


def test_a_newer_format_names_the_version_to_install(toy: Path) -> None:
    set_version(toy, "2.0", reader="partseg>=3.1", shiny="field")
    with pytest.raises(FormatTooNew, match=r"pip install 'partseg>=3\.1'"):
        Dataset.open(toy)


def test_an_older_format_prints_the_upgrade_command(toy: Path) -> None:
    set_version(toy, "0.9")
    with pytest.raises(FormatTooOld, match="partseg data convert toy --raw"):
        Dataset.open(toy)


def test_a_newer_minor_version_is_read_with_a_warning(toy: Path) -> None:
    set_version(toy, "1.7", shiny="field")
    with pytest.warns(UserWarning, match=r"1\.7 is newer"):
        assert Dataset.open(toy).splits == ("train", "val")


@pytest.mark.parametrize("content", ["", "[]", '{"format_version": "one"}', '{"format_version": "1.0"}'])
def test_a_damaged_manifest_is_named(toy: Path, content: str) -> None:
    (toy / "dataset.json").write_text(content)
    with pytest.raises(LayoutError, match="manifest is damaged"):
        Dataset.open(toy)


def test_a_folder_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no dataset here"):
        Dataset.open(tmp_path)


def test_a_damaged_parquet_is_a_loud_miss(toy: Path, tmp_path: Path) -> None:
    path = toy / "annotations" / "train.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(LayoutError, match="sha256 differs"):
        open_toy(toy, tmp_path).split("train")[0]


def test_a_damaged_cache_is_rebuilt(toy: Path, tmp_path: Path) -> None:
    expected = open_toy(toy, tmp_path).split("train")[1].areas.tolist()
    for path in (tmp_path / "cache").rglob("*.arrow"):
        path.write_bytes(path.read_bytes()[:40])
    assert open_toy(toy, tmp_path).split("train")[1].areas.tolist() == expected


def test_a_split_pickles_only_its_path(toy: Path, tmp_path: Path) -> None:
    split = open_toy(toy, tmp_path).split("train")
    before = split[0]
    content = pickle.dumps(split)
    assert len(content) < 2000
    again: Split = pickle.loads(content)
    assert again[0].rles == before.rles


def area_of(split: Split, index: int) -> float:
    return float(split[index].areas.sum())


def test_workers_may_build_the_cache_together(toy: Path, tmp_path: Path) -> None:
    split = open_toy(toy, tmp_path).split("train")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        areas = pool.starmap(area_of, [(split, index % 2) for index in range(8)])
    assert areas[:2] * 4 == areas


def test_images_are_read_upright_and_checked(toy: Path, tmp_path: Path) -> None:
    split = open_toy(toy, tmp_path).split("train")
    folder = tmp_path / "raw" / "img"
    folder.mkdir(parents=True)
    with pytest.raises(SourceError, match="missing"):
        split.read_image(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 30)).save(folder / "a.jpg", exif=exif)
    assert split.read_image(0).shape == (20, 30, 3)
    Image.new("RGB", (20, 30)).save(folder / "c.jpg")
    with pytest.raises(LayoutError, match="30x20, its record says 20x30"):
        split.read_image(1)
    (folder / "c.jpg").write_bytes(b"not an image")
    with pytest.raises(SourceError, match="damaged"):
        split.read_image(1)
    with pytest.raises(LayoutError, match="toy_raw"):
        Dataset.open(toy, cache=tmp_path / "cache").split("train").image_path(0)


def test_opening_a_cached_split_is_quick(toy: Path, tmp_path: Path) -> None:
    open_toy(toy, tmp_path).split("train")[0]
    start = time.perf_counter()
    open_toy(toy, tmp_path).split("train")[0]
    assert time.perf_counter() - start < 0.5
