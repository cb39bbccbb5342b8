from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from partseg.datasets import voc2007
from partseg.datasets.convert import convert
from partseg.datasets.source import Raw
from partseg.errors import SourceError
from partseg.layout import Dataset, Record
from partseg.layout.checks import audit
from tests.datasets.conftest import SHARED

SAMPLE = SHARED / "samples" / "voc"
FOLDER = "VOCdevkit/VOC2007"
KEY = "000001"


def box(*corners: float) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return f"<bndbox>{''.join(f'<{n}>{c}</{n}>' for n, c in zip(names, corners, strict=True))}</bndbox>"


def thing(name: str, *corners: float, inner: str = "") -> str:
    return f"<object><name>{name}</name>{inner}{box(*corners)}</object>"


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes a raw folder with one image, 60 wide and 40 high."""

    def build(*objects: str, header: str = "") -> Path:
        root = tmp_path / "raw"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / FOLDER / name).mkdir(parents=True, exist_ok=True)
        xml = f"<annotation>{header}{''.join(objects)}</annotation>"
        (root / FOLDER / "Annotations" / f"{KEY}.xml").write_text(xml)
        Image.new("RGB", (60, 40)).save(root / FOLDER / "JPEGImages" / f"{KEY}.jpg")
        (root / FOLDER / "ImageSets/Main/train.txt").write_text(f"{KEY}\n")
        return root

    return build


def read(root: Path, **options: Any) -> Record:
    (record,) = voc2007.read(Raw(root, root), "train", [KEY], voc2007.Options(**options))
    return record


def test_the_classes_are_vocs_in_its_order() -> None:
    table = voc2007.categories(Raw(Path(), Path()), voc2007.Options())
    objects = [item.source_name or item.name for item in table if item.kind == "object"]
    assert objects == sorted(objects)
    assert [item.category_id for item in table] == list(range(1, 24))
    assert [(item.name, item.parent_id) for item in table if item.kind == "part"] == [
        ("person:head", 15),
        ("person:hand", 15),
        ("person:foot", 15),
    ]


def test_boxes_count_from_one_in_the_file_and_from_zero_here(voc: Callable[..., Path]) -> None:
    root = voc(thing("dog", 1, 1, 60, 40), thing("tvmonitor", 11, 6, 11, 7))
    record = read(root)
    assert [row.bbox_xywh for row in record.annotations] == [(0, 0, 60, 40), (10, 5, 1, 2)]
    assert [row.area for row in record.annotations] == [2400, 2]
    assert [row.category_id for row in record.annotations] == [12, 20]
    assert record.image is not None
    assert record.image.pos_category_ids == (12, 20)


def test_fractional_corners_are_kept_to_the_last_digit(voc: Callable[..., Path]) -> None:
    record = read(voc(thing("dog", 45.70000076293945, 2.5, 50, 12.25)))
    (row,) = record.annotations
    assert row.extra == {"bndbox": [45.70000076293945, 2.5, 50.0, 12.25]}
    assert row.bbox_xywh == pytest.approx((44.7, 1.5, 5.3, 10.75))


def test_what_voc_says_beside_the_box_is_kept(voc: Callable[..., Path]) -> None:
    inner = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult><occluded>0</occluded>"
    inner += "<actions><walking>1</walking></actions>"
    header = f"<filename>{KEY}.jpg</filename><segmented>0</segmented><owner><name>?</name></owner>"
    record = read(voc(thing("dog", 1, 1, 9, 9, inner=inner), thing("cat", 1, 1, 9, 9), header=header))
    dog, cat = record.annotations
    assert (dog.is_ignore, cat.is_ignore) == (True, False)
    assert dog.extra == {
        "pose": "Left",
        "truncated": 1,
        "difficult": 1,
        "occluded": 0,
        "actions": {"walking": 1},
    }
    assert record.image is not None
    assert record.image.extra == {"segmented": 0, "owner": {"name": "?"}}
    assert not record.findings


def test_parts_of_persons_belong_to_them(voc: Callable[..., Path]) -> None:
    parts = "".join(f"<part><name>{name}</name>{box(3, 3, 5, 5)}</part>" for name in ("head", "hand", "hand"))
    record = read(voc(thing("dog", 1, 1, 9, 9), thing("person", 2, 2, 30, 30, inner=parts)))
    assert [(row.category_id, row.parent, row.source_row) for row in record.annotations] == [
        (12, None, 0),
        (15, None, 1),
        (21, 1, 2),
        (22, 1, 3),
        (22, 1, 4),
    ]


@pytest.mark.parametrize(
    "corners",
    [(9, 1, 3, 9), (1, 1, "nan", 9), (1, 1, "", 9), (1, 1, "1e999", 9), (70, 1, 80, 9), ("x", 1, 2, 3)],
)
def test_what_is_no_box_is_a_finding(voc: Callable[..., Path], corners: tuple[Any, ...]) -> None:
    part = f"<part><name>head</name>{box(3, 3, 5, 5)}</part>"
    root = voc(thing("person", *corners, inner=part), thing("dog", 1, 1, 9, 9))
    record = read(root)
    assert [item.reason for item in record.findings] == ["bad-box", "part-without-object"]
    assert [(row.category_id, row.source_row) for row in record.annotations] == [(12, 2)]


def test_an_annotation_of_another_image_or_size_is_noted(voc: Callable[..., Path]) -> None:
    header = "<filename>000002.jpg</filename><size><width>61</width><height>40</height></size>"
    record = read(voc(header=header))
    assert [item.reason for item in record.findings] == ["other-file-name", "size-repaired"]
    assert record.image is not None
    assert (record.image.width, record.image.height) == (60, 40)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (thing("unicorn", 1, 1, 9, 9), "unknown object class 'unicorn'.*voc.json"),
        (
            thing("dog", 1, 1, 9, 9, inner=f"<part><name>head</name>{box(1, 1, 2, 2)}</part>"),
            "unknown part 'dog:head'",
        ),
    ],
)
def test_unknown_names_say_file_and_remedy(voc: Callable[..., Path], xml: str, message: str) -> None:
    with pytest.raises(SourceError, match=rf"000001\.xml: {message}"):
        read(voc(xml))


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
FILE = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(
    "content",
    [b"", b"<annotation><object>", b"\xff\xfe\x00", b"<other/>", b"<?xml version='1.0' encoding='x'?><a/>"]
    + [text.encode() for text in (BOMB, FILE)],
)
def test_damaged_and_dangerous_annotations_are_refused(voc: Callable[..., Path], content: bytes) -> None:
    root = voc()
    (root / FOLDER / "Annotations" / f"{KEY}.xml").write_bytes(content)
    with pytest.raises(SourceError, match=r"000001\.xml: the annotation is damaged.*unpack the VOC archives"):
        read(root)


def test_every_truncation_of_an_annotation_is_an_error(voc: Callable[..., Path]) -> None:
    root = voc(thing("dog", 1, 1, 9, 9))
    path = root / FOLDER / "Annotations" / f"{KEY}.xml"
    content = path.read_bytes()
    for stop in range(len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(SourceError, match="damaged"):
            read(root)


def test_a_damaged_image_is_named(voc: Callable[..., Path]) -> None:
    root = voc()
    (root / FOLDER / "JPEGImages" / f"{KEY}.jpg").write_bytes(b"half")
    with pytest.raises(SourceError, match=r"000001\.jpg: the image is damaged"):
        read(root)


@pytest.mark.parametrize("path", [f"Annotations/{KEY}.xml", f"JPEGImages/{KEY}.jpg"])
def test_a_missing_file_is_an_error_or_a_finding_as_wanted(voc: Callable[..., Path], path: str) -> None:
    root = voc()
    (root / FOLDER / path).unlink()
    with pytest.raises(SourceError, match=f"missing: {Path(path).name}.*allow_missing"):
        voc2007.splits(Raw(root, root), voc2007.Options(splits=("train",)))
    with pytest.raises(SourceError, match=f"missing: {FOLDER}/{path}"):
        read(root)
    record = read(root, allow_missing=True)
    assert record.image is None
    assert [item.reason for item in record.findings] == ["files-missing"]


def test_a_wrong_folder_lists_everything_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        voc2007.files(tmp_path, voc2007.Options())
    for expected in ("Annotations/*.xml", "JPEGImages/*.jpg", "Main/train.txt", "Main/val.txt"):
        assert expected in str(error.value)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="real files lie beside the repository")
@pytest.mark.parametrize("year", ["VOC2007", "VOC2012"])
def test_real_files_of_any_year(year: str, tmp_path: Path) -> None:
    options = {"splits": ["trainval", "test"], "folder": f"VOCdevkit/{year}"}
    counts = convert("voc2007", SAMPLE, tmp_path / "out", options=options)
    assert (counts["images"], counts["findings"]) == (8, 0)
    dataset = Dataset.open(tmp_path / "out", image_root=SAMPLE, cache=tmp_path / "cache")
    assert audit(dataset) == []
    split = dataset.split("trainval")
    assert split.read_image(0).shape == (split[0].height, split[0].width, 3)
    names = {item.category_id: item.name for item in dataset.categories}
    shown = {record.source_key: [names[key] for key in record.category_ids.tolist()] for record in split}
    if year == "VOC2007":
        assert shown["000003"] == ["sofa", "chair"]
        sofa = next(record for record in split if record.source_key == "000003")
        assert sofa.boxes_xywh.tolist()[0] == [122, 154, 93, 41]
        assert split.table("images")["source_id"].to_pylist() == [2, 3, 4, 5]
    else:
        assert shown["2007_000042"] == ["train", "train"]
        assert split.table("images")["source_id"].to_pylist()[0] == 2007000032
