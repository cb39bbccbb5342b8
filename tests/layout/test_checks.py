from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from partseg.datasets.convert import convert
from partseg.files import sha256_file
from partseg.layout import (
    AnnotationRow,
    Category,
    Dataset,
    DatasetWriter,
    Finding,
    ImageRow,
    PanopticMap,
    Record,
    label_map_to_runs,
    mask_to_rle,
)
from partseg.layout.checks import RULES, audit, check
from partseg.layout.schema import parquet_writer
from partseg.synthetic import make_up

SAMPLE = Path(__file__).parents[2].parent / "shared" / "samples" / "pascal_part"

CATEGORIES = (
    Category(category_id=1, name="dog:head", kind="part", parent_id=11),
    Category(category_id=2, name="cat:paw", kind="part", parent_id=12),
    Category(category_id=11, name="dog", kind="object"),
    Category(category_id=12, name="cat", kind="object"),
    Category(category_id=20, name="sky", kind="stuff", is_thing=False),
)
HEIGHT, WIDTH = 20, 30
Shape = tuple[int, int, int, int]  # x, y, w, h
DOG, HEAD, CAT, PAW, SKY = (2, 2, 8, 10), (3, 3, 4, 4), (14, 5, 10, 12), (15, 12, 3, 5), (0, 18, 30, 2)


def mask(x: int, y: int, w: int, h: int) -> np.ndarray:
    array = np.zeros((HEIGHT, WIDTH), np.bool_)
    array[y : y + h, x : x + w] = True
    return array


def row(category_id: int, shape: Shape, **fields: Any) -> AnnotationRow:
    x, y, w, h = (float(value) for value in shape)
    given = {"bbox_xywh": (x, y, w, h), "area": w * h, "rle": mask_to_rle(mask(*shape)), **fields}
    return AnnotationRow(category_id=category_id, **given)


def rows() -> list[AnnotationRow]:
    """A dog with a head, a cat with a paw, and the sky."""
    x, y, w, h = DOG
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    return [
        row(11, DOG, source_id=5, polygons=[[float(value) for value in outline]]),
        row(1, HEAD, parent=0, source_id=501, score=0.5),
        row(12, CAT, source_id=6),
        row(2, PAW, parent=2, source_id=601),
        row(20, SKY, source_id=9),
    ]


def label_map() -> PanopticMap:
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    for shape, label in ((DOG, 5), (HEAD, 501), (CAT, 6), (PAW, 601), (SKY, 9)):
        ids[mask(*shape)] = label
    return PanopticMap(file_name="maps/a.png", runs=label_map_to_runs(ids))


def record(
    key: str,
    annotations: Sequence[AnnotationRow] | None = None,
    *,
    panoptic: bool = False,
    **image: Any,
) -> Record:
    given = {
        "file_name": f"img/{key}.jpg",
        "sha256": (key * 32)[:32].encode(),
        "pos_category_ids": (11, 12),
        "group": f"city {key}",
        **image,
    }
    return Record(
        image=ImageRow(height=HEIGHT, width=WIDTH, source_key=key, **given),
        annotations=rows() if annotations is None else annotations,
        panoptic=label_map() if panoptic else None,
    )


def lost(key: str) -> Record:
    finding = Finding(source_key=key, reason="too-large", message="big", image_dropped=True)
    return Record(image=None, findings=(finding,))


def write(out: Path, splits: dict[str, list[Record]], **options: Any) -> Path:
    settings = {
        "name": out.name,
        "categories": CATEGORIES,
        "converter": {},
        "image_source": "toy_raw",
        **options,
    }
    with DatasetWriter(out, **settings) as writer:
        for split, records in splits.items():
            for item in records:
                writer.write(split, item)
    return out


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two images and a lost one for training, one for validation; polygons, no panoptic maps."""
    return write(tmp_path / "toy", {"train": [record("a"), lost("b"), record("c")], "val": [record("d")]})


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    """The same with panoptic maps."""
    splits = {key: [record(name, panoptic=True) for name in key] for key in ("ac", "d")}
    return write(tmp_path / "maps", {"train": splits["ac"], "val": splits["d"]})


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """The same without masks."""
    bare = [row(11, DOG, rle=None), row(1, HEAD, parent=0, rle=None), row(12, CAT, rle=None)]
    bare += [row(2, PAW, parent=2, rle=None), row(20, SKY, rle=None)]
    return write(tmp_path / "boxes", {"train": [record("a", bare), record("c", bare)]})


def found(*folders: Path, quick: bool = False) -> set[str]:
    table = check([Dataset.open(folder) for folder in folders], quick=quick)
    return set(table["rule"].to_pylist())


def rewrite(folder: Path, path: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table and make the manifest agree, as a careless tool would."""
    file = folder / f"{path}.parquet"
    table = change(pq.read_table(file))
    with parquet_writer(file, table.schema) as writer:
        writer.write_table(table)

    def correct(content: dict[str, Any]) -> None:
        entries = [content["categories"]]
        for split in content["splits"].values():
            entries += [
                split[kind] for kind in split if isinstance(split[kind], dict) and "path" in split[kind]
            ]
        (entry,) = (entry for entry in entries if entry["path"] == f"{path}.parquet")
        entry.update(sha256=sha256_file(file), bytes=file.stat().st_size, rows=table.num_rows)

    manifest(folder, correct)


def manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = orjson.loads((folder / "dataset.json").read_bytes())
    change(content)
    (folder / "dataset.json").write_bytes(orjson.dumps(content))


def put(folder: Path, path: str, column: str, at: int, value: Any) -> None:
    """Replace one value of a table; ``value`` may be a function of the old one."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[at] = value(values[at]) if callable(value) else value
        index, field = table.schema.get_field_index(column), table.schema.field(column)
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.array(values, kind)
        return table.set_column(index, field, array.dictionary_encode() if kind != field.type else array)

    rewrite(folder, path, change)


TRAIN, VAL = "annotations/train", "annotations/val"


def test_a_sound_dataset_breaks_no_rule(sound: Path, mapped: Path, boxed: Path) -> None:
    for folder in (sound, mapped, boxed):
        assert found(folder) == set()
        assert audit(Dataset.open(folder)) == []


# How to break the dataset so that exactly one rule finds it. Rows of a table: dog, head, cat, paw, sky.
BROKEN: dict[str, Callable[[Path], None]] = {
    "file-missing": lambda d: (d / "images/val.parquet").unlink(),
    "file-changed": lambda d: (d / f"{TRAIN}.parquet").write_bytes(b"PAR1"),
    "columns-differ": lambda d: rewrite(d, TRAIN, lambda table: table.drop_columns(["is_crowd"])),
    "rows-differ": lambda d: manifest(d, lambda m: m["splits"]["val"]["images"].update(rows=7)),
    "counts-differ": lambda d: manifest(d, lambda m: m["splits"]["val"].update(parts=7)),
    "image-ids": lambda d: (
        put(d, "images/train", "image_id", 0, 0),
        rewrite(d, TRAIN, lambda table: replaced(table, "image_id", [0] * 5 + [2] * 5)),
    ),
    "annotation-ids": lambda d: put(d, VAL, "ann_id", -1, 1),
    "row-ranges": lambda d: put(d, "images/train", "ann_offset", 1, 4),
    "parent": lambda d: put(d, TRAIN, "parent_id", 6, 1),  # an object of the image before
    "category-table": lambda d: put(d, "categories", "name", 1, "dog"),
    "category-unknown": lambda d: put(d, TRAIN, "category_id", 4, 77),
    "label-unknown": lambda d: put(d, "images/train", "neg_category_ids", 0, [77]),
    "score-range": lambda d: put(d, TRAIN, "score", 0, 1.5),
    "origin-missing": lambda d: put(d, TRAIN, "origin", 0, ""),
    "run-missing": lambda d: put(d, TRAIN, "origin", 0, "parse"),
    "parent-category": lambda d: put(d, TRAIN, "category_id", 1, 2),  # the dog's head is a paw
    "object-with-parent": lambda d: (
        put(d, TRAIN, "category_id", 1, 20),
        manifest(d, lambda m: m["splits"]["train"].update(parts=3)),
    ),
    "negative-annotated": lambda d: put(d, "images/train", "neg_category_ids", 0, [11]),
    "file-name-repeated": lambda d: put(d, "images/train", "file_name", 1, "img/a.jpg"),
    "source-id-repeated": lambda d: put(d, TRAIN, "source_id", 1, 5),
    "part-without-object": lambda d: put(d, TRAIN, "parent_id", 1, None),
    "box-not-finite": lambda d: put(d, TRAIN, "bbox", 0, [2.0, float("nan"), 8.0, 10.0]),
    "mask-malformed": lambda d: put(d, TRAIN, "rle", 4, b"\x01"),
    "mask-size": lambda d: put(d, TRAIN, "rle", 4, mask_to_rle(np.ones((3, 3)))),
    "mask-empty": lambda d: put(d, TRAIN, "rle", 4, mask_to_rle(np.zeros((HEIGHT, WIDTH)))),
    "mask-missing": lambda d: put(d, TRAIN, "rle", 4, None),
    "box-not-of-mask": lambda d: put(d, TRAIN, "bbox", 0, [2.0, 2.0, 8.0, 12.5]),
    "area-not-of-mask": lambda d: put(d, TRAIN, "area", 0, 89.0),
    "polygons-stray": lambda d: put(d, f"{TRAIN}.polygons", "ann_id", 1, 999),
    "polygon-malformed": lambda d: put(d, f"{TRAIN}.polygons", "polygons", 1, [[1.0, 2.0, 3.0, 4.0]]),
    "photo-repeated": lambda d: put(d, "images/train", "sha256", 1, b"a" * 32),
    "photo-in-training": lambda d: put(d, "images/val", "sha256", 0, b"a" * 32),
    "group-cut": lambda d: put(d, "images/val", "group", 0, "city a"),
}  # fmt: skip

BROKEN_BOXES: dict[str, Callable[[Path], None]] = {
    "box-outside-image": lambda d: put(d, TRAIN, "bbox", 4, [20.0, 5.0, 12.0, 4.0]),
    "box-empty": lambda d: put(d, TRAIN, "bbox", 4, [20.0, 5.0, 0.0, 4.0]),
    "part-outside-object": lambda d: put(d, TRAIN, "bbox", 1, [8.0, 3.0, 5.0, 4.0]),
}  # fmt: skip

BROKEN_MAPS: dict[str, Callable[[Path], None]] = {
    "panoptic-stray": lambda d: rewrite(
        d,
        "panoptic/train",
        lambda table: pa.concat_tables(
            [table, replaced(table.slice(0, 1), "image_id", [999])],
        ),
    ),
    "panoptic-size": lambda d: (
        put(d, "panoptic/train", "run_lengths", 0, lambda runs: [*runs, 5]),
        put(d, "panoptic/train", "run_ids", 0, lambda ids: [*ids, 0]),
    ),
    "panoptic-id-unknown": lambda d: put(d, "panoptic/train", "run_ids", 1, lambda ids: [999, *ids[1:]]),
    "panoptic-area": lambda d: put(d, "panoptic/train", "run_ids", 1, lambda ids: [6, *ids[1:]]),
    "panoptic-missing": lambda d: rewrite(d, "panoptic/train", lambda table: table.slice(1)),
}  # fmt: skip


def replaced(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    index, field = table.schema.get_field_index(column), table.schema.field(column)
    return table.set_column(index, field, pa.array(values, field.type))


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_rule_is_found_and_no_other(sound: Path, code: str) -> None:
    BROKEN[code](sound)
    assert found(sound) == {code}


@pytest.mark.parametrize("code", BROKEN_BOXES)
def test_a_broken_rule_is_found_without_masks(boxed: Path, code: str) -> None:
    BROKEN_BOXES[code](boxed)
    assert found(boxed) == {code}


@pytest.mark.parametrize("code", BROKEN_MAPS)
def test_a_broken_rule_is_found_in_panoptic_maps(mapped: Path, code: str) -> None:
    BROKEN_MAPS[code](mapped)
    assert found(mapped) == {code}


WRITTEN: dict[str, tuple[dict[str, list[Record]], dict[str, Any]]] = {
    "split-empty": ({"train": [record("a")]}, {"source_records": {"train": 1, "test": 0}}),
    "category-unused": (
        {"train": [record("a")]},
        {"categories": (*CATEGORIES, Category(category_id=30, name="cow", kind="object"))},
    ),
    "label-not-annotated": ({"train": [record("a"), record("c", rows()[:2])]}, {}),
    "annotation-repeated": ({"train": [record("a", [*rows(), row(20, SKY)])]}, {}),
    "part-outside-object": ({"train": [record("a", [*rows(), row(1, (8, 11, 6, 3), parent=0)])]}, {}),
    "parts-exceed-object": ({"train": [record("a", [*rows(), row(1, (2, 2, 11, 11), parent=0)])]}, {}),
    "photo-in-two-splits": ({"train": [record("a")], "trainval": [record("a", group="town")]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("code", WRITTEN)
def test_a_suspicious_source_is_found(tmp_path: Path, code: str) -> None:
    splits, options = WRITTEN[code]
    assert found(write(tmp_path / "odd", splits, **options)) == {code}


def test_every_rule_is_tested_and_has_its_own_code() -> None:
    codes = [rule.code for rule in RULES]
    assert len(codes) == len(set(codes))
    assert {*BROKEN, *BROKEN_BOXES, *BROKEN_MAPS, *WRITTEN} == set(codes)


@pytest.mark.parametrize(
    "source", ["pascal_part", "lvis_v1", "paco_lvis_v1", "coco_panoptic", "cityscapes_pp"]
)
def test_made_up_worlds_have_neither_errors_nor_warnings(tmp_path: Path, source: str) -> None:
    make_up(source, tmp_path / "raw", {"seed": 4, "train": 3, "val": 2, "size": 64})
    convert(source, tmp_path / "raw", tmp_path / "out")
    assert found(tmp_path / "out") <= {"category-unused", "mask-missing"}


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no real samples here")
def test_real_files_have_neither_errors_nor_warnings(tmp_path: Path) -> None:
    raw, lists = tmp_path / "raw", "VOCdevkit/VOC2010/ImageSets/Main"
    for folder in ("Annotations_Part", "VOCdevkit/VOC2010/JPEGImages"):
        (raw / folder).parent.mkdir(parents=True, exist_ok=True)
        (raw / folder).symlink_to(SAMPLE / folder)
    (raw / lists).mkdir(parents=True)
    keys = sorted(path.stem for path in (SAMPLE / "Annotations_Part").iterdir())
    for split, chosen in (("train", keys[:9]), ("val", keys[9:])):
        (raw / lists / f"{split}.txt").write_text("\n".join(chosen) + "\n")
    convert("pascal_part", raw, tmp_path / "out")
    assert found(tmp_path / "out") == {"category-unused"}


def test_an_image_id_of_another_split_is_an_error(sound: Path) -> None:
    put(sound, "images/val", "image_id", 0, 1)
    rewrite(sound, VAL, lambda table: replaced(table, "image_id", [1] * 5))
    assert found(sound) == {"image-ids"}
    assert audit(Dataset.open(sound)) == ["split val, image 1: image id 1 is used in another split"]


def test_a_case_names_its_split_image_annotation_and_degree(sound: Path) -> None:
    put(sound, VAL, "area", 0, 180.0)
    (case,) = check([Dataset.open(sound)]).to_pylist()
    assert case == {
        "dataset": "toy",
        "rule": "area-not-of-mask",
        "severity": "warning",
        "split": "val",
        "image_id": 3,
        "ann_id": 11,
        "message": "its area is 180 px, that of its mask 80",
        "value": 100.0,
    }


def test_a_quick_check_decodes_no_mask(sound: Path) -> None:
    put(sound, TRAIN, "rle", 4, b"\x01")
    assert found(sound, quick=True) == set()
    put(sound, TRAIN, "bbox", 4, [31.0, 5.0, 4.0, 4.0])
    assert found(sound, quick=True) == {"box-outside-image"}


def test_rounding_and_polygon_areas_are_no_mistakes(sound: Path) -> None:
    put(sound, TRAIN, "bbox", 0, [0.4, 1.2, 9.0, 11.5])
    put(sound, TRAIN, "area", 0, 87.5)
    put(sound, TRAIN, "area", 1, 12.3)
    assert found(sound) == set()


def photo(name: str, size: tuple[int, int] = (480, 640), sha256: bytes | None = None) -> Record:
    image = ImageRow(file_name=name, height=size[0], width=size[1], source_key=name, sha256=sha256)
    return Record(image=image)


@pytest.mark.parametrize(
    ("training", "evaluation", "shared"),
    [
        (photo("train2017/000000000009.jpg"), photo("val2017/000000000009.jpg"), True),
        (photo("val2014/COCO_val2014_000000000042.jpg"), photo("val2017/000000000042.jpg"), True),
        (photo("JPEGImages/2007_000032.jpg"), photo("images/val/2007_000032.png"), True),
        (photo("a/2007_000032.jpg"), photo("b/2007_000032.jpg", size=(10, 10)), False),
        (photo("a/000005.jpg"), photo("b/000005.jpg"), False),  # every dataset has such a name
        (photo("a/x.jpg", sha256=b"s" * 32), photo("b/y.jpg", sha256=b"s" * 32), True),
        (photo("a/000000000009.jpg", sha256=b"s" * 32), photo("000000000009.jpg", sha256=b"t" * 32), False),
        (photo("a/000000000009.jpg", sha256=b"s" * 32), photo("000000000009.jpg"), True),
    ],
)
def test_photos_are_recognised_in_other_datasets(
    tmp_path: Path, training: Record, evaluation: Record, shared: bool
) -> None:
    one = write(tmp_path / "one", {"train": [training]}, image_source="one")
    two = write(tmp_path / "two", {"minival": [evaluation]}, image_source="two")
    table = check([Dataset.open(two), Dataset.open(one)])
    cases = [case for case in table.to_pylist() if case["rule"] == "photo-in-training"]
    assert [(case["dataset"], case["split"]) for case in cases] == [("two", "minival")] * shared
    assert all("one train" in case["message"] for case in cases)


def test_training_photos_may_be_shared_between_datasets(tmp_path: Path) -> None:
    splits = {"train": [photo("train2017/000000000009.jpg")]}
    folders = [write(tmp_path / name, splits, image_source=name) for name in ("coco", "lvis")]
    assert found(*folders) == {"category-unused"}


def test_many_images_are_checked_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from partseg.layout.checks import columns

    monkeypatch.setattr(columns, "_BATCH_ROWS", 7)
    monkeypatch.setattr(columns, "_PIECE_BYTES", 40)
    records = [record(str(n), [] if n % 3 else None, pos_category_ids=()) for n in range(10, 40)]
    folder = write(tmp_path / "many", {"train": records})
    assert found(folder) == set()
    put(folder, TRAIN, "rle", -4, mask_to_rle(mask(20, 2, 4, 4)))  # the head of the last dog
    put(folder, TRAIN, "bbox", -4, [20.0, 2.0, 4.0, 4.0])
    assert found(folder) == {"part-outside-object"}
