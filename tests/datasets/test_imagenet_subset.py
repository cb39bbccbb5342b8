from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from partseg.datasets import imagenet_subset
from partseg.datasets.convert import convert
from partseg.datasets.facts import category_facts
from partseg.datasets.imagenet_subset import Options
from partseg.datasets.source import Raw
from partseg.errors import LayoutError, SourceError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.layout.export.coco import export
from tests.datasets.conftest import SHARED

GOLDEN = SHARED / "golden" / "imagenet_select" / "a"
ADDITION = Options(subset="imagenet_golden_addition")


def picture(width: int, height: int, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not GOLDEN.is_dir():
        pytest.skip("the golden JSON files lie beside the repository")
    root = tmp_path_factory.mktemp("imagenet")
    for wnid, images in json.loads((GOLDEN / "tree.json").read_text()).items():
        (root / wnid).mkdir()
        for name, width, height in images:
            (root / wnid / name).write_bytes(picture(width, height))
    return root


@pytest.mark.parametrize(
    ("subset", "golden"),
    [
        ("imagenet_voc", "voc"),
        ("imagenet_golden", "golden_all"),
        ("imagenet_golden_without_addition", "golden_golden"),
        ("imagenet_golden_pascal", "golden_pascal"),
        ("imagenet_golden_partimagenet", "golden_partimagenet"),
        ("imagenet_golden_paco", "golden_paco"),
        ("imagenet_golden_addition", "golden_addition"),
    ],
)
def test_every_selection_exports_to_the_bytes_of_vlpart(
    tree: Path, tmp_path: Path, subset: str, golden: str
) -> None:
    convert("imagenet_subset", tree, tmp_path / "out", options={"subset": subset})
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    assert audit(dataset) == []
    export(dataset, "train", tmp_path / "train.json", compat="vlpart")
    assert (tmp_path / "train.json").read_bytes() == (GOLDEN / f"{golden}.json").read_bytes()
    with pytest.raises(LayoutError, match="no files of base categories"):
        export(dataset, "train", tmp_path / "train.json", compat="vlpart", base_only=True)


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """Writes class folders; those of ``subset`` that are not named stay empty."""

    def build(subset: str, **folders: dict[str, bytes]) -> Path:
        root = tmp_path / "imagenet"
        for wnid in Options(subset=subset).wnids():
            (root / wnid).mkdir(parents=True)
        for wnid, files in folders.items():
            for name, content in files.items():
                (root / wnid / name).write_bytes(content)
        return root

    return build


def test_large_images_are_left_out_but_take_an_id(images: Callable[..., Path], tmp_path: Path) -> None:
    fits, wide, high = picture(1000, 1000), picture(1001, 9), picture(9, 1001)
    files = {"d.JPEG": fits, "a.JPEG": fits, "b.JPEG": wide, "c.JPEG": high, "notes.txt": b"", ".x": b""}
    root = images("imagenet_golden_addition", n01871265=files)  # tusker: an elephant
    counts = convert(
        "imagenet_subset", root, tmp_path / "out", options={"subset": "imagenet_golden_addition"}
    )
    assert (counts["source_records"], counts["images"], counts["dropped"]) == (4, 2, 2)
    split = Dataset.open(tmp_path / "out").split("train")
    assert split.table("images")["source_id"].to_pylist() == [1, 4]
    assert [record.file_name for record in split] == ["n01871265/a.JPEG", "n01871265/d.JPEG"]
    assert [record.pos_category_ids.tolist() for record in split] == [[501], [501]]
    assert set(split.findings()["reason"].to_pylist()) == {"image-too-large"}


def test_an_image_appears_under_every_category_of_its_folder(images: Callable[..., Path]) -> None:
    root = images("imagenet_golden", n02823428={"a.JPEG": picture(9, 9)})  # a beer bottle
    options = Options(subset="imagenet_golden")
    raw = Raw(root, root)
    keys = imagenet_subset.splits(raw, options)["train"]
    records = [item.image for item in imagenet_subset.read(raw, "train", keys, options) if item.image]
    names = {item.category_id: item.name for item in imagenet_subset.categories(raw, options)}
    assert [(item.source_id, names[item.pos_category_ids[0]]) for item in records] == [
        (1, "bottle"),
        (2, "Bottle"),
        (3, "bottle (paco)"),
    ]
    assert imagenet_subset.files(root, options) == ["n02823428/a.JPEG"]


def test_only_the_first_of_a_folder_count(images: Callable[..., Path]) -> None:
    files = {f"{number:03d}.JPEG": b"" for number in range(503)}
    root = images("imagenet_golden_addition", n01882714=files)
    keys = imagenet_subset.splits(Raw(root, root), ADDITION)["train"]
    assert (len(keys), keys[-1]) == (500, "500:502:n01882714/499.JPEG")


def test_the_published_mistake_can_be_repaired(images: Callable[..., Path]) -> None:
    remote, screen = {"a.JPEG": picture(9, 9)}, {"b.JPEG": picture(9, 9)}
    root = images("imagenet_voc", n04074963=remote)
    for wnid in ("n03782006", "n04404412"):
        (root / wnid).mkdir()
    (root / "n03782006/b.JPEG").write_bytes(screen["b.JPEG"])
    raw = Raw(root, root)
    published, repaired = Options(), Options(published_mistakes=False)
    assert imagenet_subset.files(root, published) == ["n04074963/a.JPEG"]
    assert imagenet_subset.files(root, repaired) == ["n03782006/b.JPEG"]
    assert "remote_control" in imagenet_subset.details(raw, published)["train"]["mistakes"][0]
    assert imagenet_subset.details(raw, repaired)["train"]["mistakes"] == []
    table = {item.name: item.extra for item in imagenet_subset.categories(raw, repaired)}
    assert table["tv monitor"] == {"imagenet_id": [[665, 665], [852, 852]]}


def test_turned_images_are_listed_as_the_tools_see_them(images: Callable[..., Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    root = images("imagenet_voc", n02690373={"a.JPEG": picture(30, 20, exif=exif)})
    convert("imagenet_subset", root, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out", cache=tmp_path / "cache")
    record = dataset.split("train")[0]
    assert (record.width, record.height) == (20, 30)
    export(dataset, "train", tmp_path / "voc.json", compat="vlpart")
    (image,) = json.loads((tmp_path / "voc.json").read_text())["images"]
    assert (image["width"], image["height"]) == (30, 20)


def test_missing_folders_are_listed_or_left_out_as_wanted(tmp_path: Path) -> None:
    (tmp_path / "n01871265").mkdir()
    (tmp_path / "n01871265" / "a.JPEG").write_bytes(picture(9, 9))
    with pytest.raises(SourceError, match=r"missing: n01882714, .*more.*allow_missing"):
        imagenet_subset.files(tmp_path, ADDITION)
    some = Options(subset="imagenet_golden_addition", allow_missing=True)
    assert imagenet_subset.files(tmp_path, some) == ["n01871265/a.JPEG"]
    missing = imagenet_subset.details(Raw(tmp_path, tmp_path), some)["train"]["missing_folders"]
    assert len(missing) == 37
    with pytest.raises(SourceError, match="class folders are missing"):
        imagenet_subset.files(tmp_path, Options(allow_missing=True))


@pytest.mark.parametrize("keep", [0, 2, 20, 150])
def test_a_damaged_image_is_named(images: Callable[..., Path], keep: int) -> None:
    root = images("imagenet_voc", n02690373={"a.JPEG": picture(30, 20)[:keep]})
    raw = Raw(root, root)
    keys = imagenet_subset.splits(raw, Options())["train"]
    with pytest.raises(SourceError, match=r"n02690373/a\.JPEG: the image is damaged"):
        list(imagenet_subset.read(raw, "train", keys, Options()))
    (root / "n02690373/a.JPEG").unlink()
    with pytest.raises(SourceError, match=r"n02690373/a\.JPEG: cannot be read"):
        list(imagenet_subset.read(raw, "train", keys, Options()))


def test_the_tables_agree_with_the_list_of_classes() -> None:
    facts, classes = category_facts("imagenet_subsets"), category_facts("imagenet1k")["classes"]
    assert len(classes) == 1000
    assert [wnid for wnid, _ in classes] == sorted(wnid for wnid, _ in classes)
    counts = {name: len(Options(subset=name).wnids()) for name in facts["subsets"]}
    assert counts["imagenet_voc"] == 39
    assert counts["imagenet_golden"] == 337
    # the same folders as the table that the source imagenet_folder uses by default
    assert Options().wnids() == sorted(category_facts("imagenet_voc")["classes"])
