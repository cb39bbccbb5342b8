from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from partseg.datasets.source import Raw
from partseg.errors import LayoutError
from partseg.layout import AnnotationRow, Category, Dataset, DatasetWriter, ImageRow, Record
from partseg.layout.export.coco import export, to_coco
from partseg.synthetic import make_up
from tests.layout.conftest import CATEGORIES, dropped, record, write

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
JSON = dict[str, Any]


def convert(source: str, path: Path, folder: Path) -> Dataset:
    """The dataset of one annotation file, whose split is called val."""
    module = import_module(f"partseg.datasets.{source}")
    options = module.Options(annotations={"val": path.name}, images="none")
    raw = Raw(path.parent, folder / "scratch")
    raw.scratch.mkdir(parents=True)
    writer = DatasetWriter(
        folder / "out",
        name=source,
        categories=module.categories(raw, options),
        converter={"name": source},
        image_source=source,
        details=module.details(raw, options),
    )
    with writer:
        for split, keys in module.splits(raw, options).items():
            for item in module.read(raw, split, list(keys), options):
                writer.write(split, item)
    return Dataset.open(folder / "out", cache=folder / "cache")


def through(source: str, content: JSON, **how: Any) -> JSON:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "raw" / "file.json"
        path.parent.mkdir()
        path.write_bytes(orjson.dumps(content))
        dataset = convert(source, path, Path(name))
        out = Path(name) / "again.json"
        export(dataset, "val", out, **how)
        return dict(orjson.loads(out.read_bytes()))


# --- what goes in comes out -----------------------------------------------------------------------------

numbers = st.one_of(st.integers(0, 30), st.floats(0, 30, width=64).map(lambda value: round(value, 2)))
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1e3, 1e3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
unknown = st.dictionaries(
    st.sampled_from(["note", "keypoints", "instance_id", "weird key"]), anything, max_size=2
)
ring = st.lists(numbers, min_size=3, max_size=6).flatmap(
    lambda xs: st.lists(numbers, min_size=len(xs), max_size=len(xs)).map(
        lambda ys: [value for pair in zip(xs, ys, strict=True) for value in pair]
    )
)


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    pixels = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(pixels, np.uint8).reshape(height, width)


@st.composite
def segmentations(draw: st.DrawFn, height: int, width: int) -> Any:
    form = draw(st.sampled_from(["polygons", "polygons", "compressed", "uncompressed", "empty"]))
    if form == "polygons":
        return draw(st.lists(ring, min_size=1, max_size=3))
    if form == "empty":
        return []
    mask = draw(masks(height, width))
    if form == "compressed":
        counts: Any = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    else:
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [height, width], "counts": counts}


@st.composite
def coco_files(draw: st.DrawFn, lvis: bool = False) -> JSON:
    category_ids = draw(st.lists(st.integers(0, 90), min_size=1, max_size=4, unique=True))
    categories = [draw(unknown) | {"id": number, "name": f"c{number}"} for number in category_ids]
    if draw(st.booleans()):
        for row in categories:
            row["supercategory"] = draw(st.sampled_from(["animal", "vehicle"]))
    images = []
    for number in draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True)):
        image = draw(unknown) | {"id": number, "file_name": f"{number:012d}.jpg"}
        image |= {"height": draw(st.integers(1, 9)), "width": draw(st.integers(1, 9))}
        if lvis:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
            for name in ("neg_category_ids", "not_exhaustive_category_ids"):
                image[name] = draw(st.lists(st.sampled_from(category_ids), unique=True))
        images.append(image)
    annotations = []
    size = {image["id"]: (image["height"], image["width"]) for image in images}
    for number in draw(st.lists(st.integers(0, 3) | st.integers(0, 10**9), max_size=6)):
        image_id = draw(st.sampled_from(sorted(size)))
        row = draw(unknown) | {"id": number, "image_id": image_id}
        row |= {"category_id": draw(st.sampled_from(category_ids)), "area": draw(numbers)}
        row |= {"bbox": draw(st.lists(numbers, min_size=4, max_size=4))}
        row["segmentation"] = draw(segmentations(*size[image_id]))
        if not lvis:
            row["iscrowd"] = draw(st.integers(0, 1))
        for name, values in (
            ("ignore", st.integers(0, 1)),
            ("score", st.floats(0, 1)),
            ("attribute_ids", st.lists(st.integers(0, 9))),
        ):
            if draw(st.integers(0, 4)) == 0:
                row[name] = draw(values)
        for name in ("area", "segmentation", "iscrowd"):
            if draw(st.integers(0, 9)) == 0:
                row.pop(name, None)
        annotations.append(row)
    content = {
        "info": draw(anything),
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    return {key: content[key] for key in draw(st.permutations(list(content)))}


@settings(max_examples=120, deadline=None)
@given(coco_files())
def test_a_coco_file_comes_out_as_it_went_in(content: JSON) -> None:
    assert through("coco", content) == content


@settings(max_examples=60, deadline=None)
@given(coco_files(lvis=True))
def test_a_lvis_file_comes_out_as_it_went_in(content: JSON) -> None:
    assert through("lvis_v1", content) == content


@st.composite
def paco_files(draw: st.DrawFn) -> JSON:
    """The same with parts: the last categories belong to the first, and annotations to each other."""
    content = draw(coco_files(lvis=True))
    for place, row in enumerate(content["categories"]):
        if place and draw(st.booleans()):
            row["name"] = f"{content['categories'][0]['name']}:p{place}"
    for image in content["images"]:
        image["neg_category_ids_attrs"] = draw(st.lists(st.integers(0, 99)))
    for row in content["annotations"]:
        together = [other["id"] for other in content["annotations"] if other["image_id"] == row["image_id"]]
        row["obj_ann_id"] = draw(st.sampled_from([row["id"], *together, 10**12]))
        row["attribute_ids"] = draw(st.lists(st.integers(0, 58)))
    content["attributes"] = draw(anything)
    return content


@settings(max_examples=60, deadline=None)
@given(paco_files())
def test_a_paco_file_comes_out_as_it_went_in(content: JSON) -> None:
    assert through("paco_lvis_v1", content) == content


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples here")
@pytest.mark.parametrize(
    ("source", "name", "form"),
    [
        ("coco", "coco/annotations/instances_val2017.json", "coco"),
        ("coco", "coco/annotations/person_keypoints_val2017.json", "coco"),
        ("coco", "results_coco/annotations/instances_val2014_100.json", "coco"),
        ("lvis_v1", "lvis_v0.5/lvis_val_100.json", "coco"),
        ("lvis_v1", "lvis_v0.5/lvis_val_100.json", "lvis"),
    ],
)
def test_real_files_come_out_as_they_went_in(tmp_path: Path, source: str, name: str, form: str) -> None:
    dataset = convert(source, SAMPLES / name, tmp_path)
    export(dataset, "val", tmp_path / "again.json", form=form)
    assert orjson.loads((tmp_path / "again.json").read_bytes()) == orjson.loads((SAMPLES / name).read_bytes())


@pytest.mark.parametrize(
    "source",
    ["coco", "lvis_v1", "paco_lvis_v1", "paco_ego4d_v1", "partimagenet"],
)
def test_every_json_source_comes_out_as_it_went_in(tmp_path: Path, source: str) -> None:
    make_up(source, tmp_path / "raw", {}, {})
    module = import_module(f"partseg.datasets.{source}")
    for split, name in module.Options().names().items():
        dataset = convert(source, tmp_path / "raw" / name, tmp_path / split)
        export(dataset, "val", tmp_path / "again.json", form="paco" if "paco" in source else "coco")
        assert orjson.loads((tmp_path / "again.json").read_bytes()) == orjson.loads(
            (tmp_path / "raw" / name).read_bytes()
        )


def test_what_the_layout_derived_is_not_in_the_source_s_file(tmp_path: Path) -> None:
    box = {"bbox_xywh": (0.0, 0.0, 2.0, 2.0), "area": 4.0}
    rows = (
        AnnotationRow(category_id=12, **box),
        AnnotationRow(category_id=11, source_id=9, source_row=1, **box),
        AnnotationRow(category_id=2, source_id=7, source_row=0, parent=0, **box),
    )
    image = ImageRow(file_name="x.jpg", height=4, width=4, source_key="31", source_id=31)
    categories = [
        Category(category_id=11, name="dog", kind="object", source_id=10),
        Category(category_id=12, name="cat", kind="object"),
        Category(category_id=2, name="cat:paw", kind="part", parent_id=12, source_id=1, source_name="paw"),
    ]
    folder = write(tmp_path / "toy", {"val": [Record(image=image, annotations=rows)]}, categories=categories)
    found = to_coco(Dataset.open(folder, cache=tmp_path / "cache"), "val", ids="source")
    assert [(row["id"], row["image_id"], row["category_id"]) for row in found["annotations"]] == [
        (7, 31, 1),
        (9, 31, 10),
    ]
    assert found["categories"] == [{"id": 10, "name": "dog"}, {"id": 1, "name": "paw"}]


# --- the layout's own numbers ---------------------------------------------------------------------------


@pytest.fixture
def dataset(toy: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(toy, image_root=tmp_path / "raw", cache=tmp_path / "cache")


def test_the_layout_s_ids_carry_links_scores_and_labels(dataset: Dataset) -> None:
    found = to_coco(dataset, "train")
    image = dataset.split("train")[1]
    rows = [row for row in found["annotations"] if row["image_id"] == image.image_id]
    assert [row["id"] for row in rows] == image.ann_ids.tolist()
    parents = [-1 if parent < 0 else int(image.ann_ids[parent]) for parent in image.parent_rows]
    assert [row.get("parent_id", -1) for row in rows] == parents
    assert [row.get("score") for row in rows] == [None, None, None, None, 0.25]
    assert [row.get("attribute_ids") for row in rows] == [None, None, [3, 4], None, None]
    assert found["images"][1] == {
        "id": image.image_id,
        "file_name": "img/c.jpg",
        "height": 20,
        "width": 30,
        "pos_category_ids": [11, 12],
    }
    head = {"id": 1, "name": "dog:head", "kind": "part", "parent_id": 11, "group": "novel"}
    assert found["categories"][0] == head


@pytest.mark.parametrize("form", ["coco", "lvis", "paco"])
def test_reading_the_layout_s_export_restores_the_dataset(
    dataset: Dataset, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "own" / "train.json"
    export(dataset, "train", path, form=form)
    again = convert("coco_json", path, tmp_path / "converted")
    for stored, read in zip(dataset.categories, again.categories, strict=True):
        for name in ("category_id", "name", "kind", "parent_id", "group"):
            assert getattr(read, name) == getattr(stored, name), name
    for stored, read in zip(dataset.split("train"), again.split("val"), strict=True):
        assert read.rles == stored.rles
        for name in ("category_ids", "parent_rows", "boxes_xywh", "areas", "is_crowd", "scores"):
            np.testing.assert_array_equal(getattr(read, name), getattr(stored, name))
        assert read.pos_category_ids.tolist() == stored.pos_category_ids.tolist()
    own = orjson.loads(path.read_bytes())
    assert to_coco(again, "val") == own
    assert to_coco(again, "val", ids="layout", form=form)["annotations"] == own["annotations"]


def test_pycocotools_reads_every_mask(dataset: Dataset, tmp_path: Path) -> None:
    counts = export(dataset, "train", tmp_path / "coco.json")
    assert counts == {"categories": 4, "images": 2, "annotations": 10}
    coco = COCO(str(tmp_path / "coco.json"))
    for image in dataset.split("train"):
        for ann_id, rle in zip(image.ann_ids.tolist(), image.rles, strict=True):
            expected = coco_mask.decode({"size": [image.height, image.width], "counts": rle})
            np.testing.assert_array_equal(coco.annToMask(coco.anns[ann_id]), expected)


def test_a_dataset_without_source_ids_cannot_be_written_with_them(dataset: Dataset) -> None:
    with pytest.raises(LayoutError, match="no unique image ids; export with the layout's ids"):
        to_coco(dataset, "train", ids="source")


def test_novel_categories_and_images_with_several_objects_can_be_left_out(tmp_path: Path) -> None:
    one = Record(image=record("one").image, annotations=record("one").annotations[:1])
    folder = write(tmp_path / "toy", {"val": [record("two", 1), one]})
    dataset = Dataset.open(folder, cache=tmp_path / "cache")
    base = to_coco(dataset, "val", base_only=True)
    assert {row["category_id"] for row in base["annotations"]} == {2, 12}
    assert [row["pos_category_ids"] for row in base["images"]] == [[12], [12]]
    assert [
        row["file_name"] for row in to_coco(dataset, "val", base_only=True, single_object=True)["images"]
    ] == ["img/one.jpg"]  # the novel dog beside the cat counts
    single = to_coco(dataset, "val", single_object=True)
    assert [row["file_name"] for row in single["images"]] == ["img/one.jpg"]
    assert [row["category_id"] for row in single["annotations"]] == [11]


def test_pieces_make_no_difference(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = to_coco(dataset, "train", form="paco")
    monkeypatch.setattr("partseg.layout.export.coco_rows._ROWS", 3)
    export(dataset, "train", tmp_path / "pieces.json", form="paco")
    assert orjson.loads((tmp_path / "pieces.json").read_bytes()) == whole


def test_an_empty_split_is_a_file_with_empty_lists(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", {"train": [dropped("a")]}, source_records={"train": 1, "val": 0})
    dataset = Dataset.open(folder, cache=tmp_path / "cache")
    for split in ("train", "val"):
        for form in ("coco", "lvis", "paco"):
            found = to_coco(dataset, split, form=form)
            assert (found["images"], found["annotations"], len(found["categories"])) == ([], [], 4)


def test_an_interrupted_export_leaves_the_old_file(dataset: Dataset, tmp_path: Path) -> None:
    class Stop:
        def update(self, done: int, total: int, message: str = "") -> None:
            raise KeyboardInterrupt

        def log(self, message: str) -> None: ...

    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "coco.json").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        export(dataset, "train", folder / "coco.json", report=Stop())
    assert [path.name for path in folder.iterdir()] == ["coco.json"]
    assert (folder / "coco.json").read_text() == "old"


# --- LVIS and PACO of what was neither -------------------------------------------------------------------


def many(count: int) -> Iterator[Record]:
    """A dog in every image, a cat in every tenth."""
    for index in range(count):
        rows = record(str(index), index).annotations
        yield Record(image=record(str(index)).image, annotations=rows if index % 10 == 0 else rows[:1])


def test_any_dataset_can_be_written_as_lvis(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", {"val": many(110)})
    found = to_coco(Dataset.open(folder, cache=tmp_path / "cache"), "val", form="lvis")
    assert all(row["neg_category_ids"] == row["not_exhaustive_category_ids"] == [] for row in found["images"])
    assert found["images"][3]["coco_url"] == "img/3.jpg"
    categories = {row["name"]: row for row in found["categories"]}
    assert {name: row["frequency"] for name, row in categories.items()} == {
        "dog": "f",
        "cat": "c",
        "dog:head": "c",
        "cat:paw": "c",
    }
    instances = Counter(row["category_id"] for row in found["annotations"])
    for row in found["categories"]:
        in_images = {item["image_id"] for item in found["annotations"] if item["category_id"] == row["id"]}
        assert (row["image_count"], row["instance_count"]) == (len(in_images), instances[row["id"]])
    assert categories["dog"]["synonyms"] == ["hound", "pup"]
    assert categories["cat"]["synonyms"] == ["cat"]
    assert all({"synset", "def"} <= row.keys() for row in found["categories"])
    assert {"info", "licenses"} <= found.keys()


def test_any_dataset_can_be_written_as_paco(dataset: Dataset) -> None:
    found = to_coco(dataset, "train", form="paco")
    by_id = {row["id"]: row for row in found["annotations"]}
    kinds = {item.category_id: item.kind for item in CATEGORIES}
    for row in found["annotations"]:
        owner = by_id[row["obj_ann_id"]]
        assert owner["image_id"] == row["image_id"]
        assert kinds[owner["category_id"]] == "object"
        assert (owner is row) == (kinds[row["category_id"]] == "object")
        assert {"attribute_ids", "dom_color_ids", "unknown_color"} <= row.keys()
    assert [row["supercategory"] for row in found["categories"]] == ["PART", "PART", "OBJECT", "OBJECT"]
    assert [row["name"] for row in found["part_categories"]] == ["head", "paw"]
    assert all(row["neg_category_ids_attrs"] == [] for row in found["images"])
