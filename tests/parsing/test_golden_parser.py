"""The whole parser against a run of the original one: same weights, same photos, same file in the end.

The original's descriptors are compared in ``test_golden_features.py``. What it showed its detector is given:
a pixel of a thousand would differ otherwise, which moves a few boxes by thousandths of a pixel and changes
the order of those that are equally good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from partseg.cli import make_app
from partseg.datasets.convert import convert
from partseg.layout import Category, Dataset, DatasetWriter, ImageRow, Record
from partseg.parsing import detector as detector_module
from partseg.parsing.base_images import BaseImages
from partseg.parsing.config import ParserConfig
from partseg.parsing.descriptors import Describer
from partseg.parsing.detector import ModelDetector, enlarged
from partseg.parsing.index import BaseIndex, base_rows
from partseg.parsing.parser import Parser
from partseg.parsing.parts import (
    Base,
    Candidates,
    FoundParts,
    Part,
    Transfer,
    detected_parts,
    transferred_parts,
)
from pipelines.inputs import chosen
from tests.golden import parser as golden
from tests.golden.parser import PASCAL_PART, Case, needs_golden

pytestmark = [
    needs_golden,
    pytest.mark.skipif(not PASCAL_PART.is_dir(), reason="the photos are not in the repository"),
]
FOLDERS = "VOCdevkit/VOC2010"
CONFIG = ParserConfig()


class Remembering:
    """A detector that looks at an image once: at 800 pixels that takes seconds."""

    def __init__(self, detector: ModelDetector) -> None:
        self._detector = detector
        self._seen: dict[tuple[str, bytes], Any] = {}

    def find(self, images: list[Tensor], config: ParserConfig) -> list[FoundParts]:
        return [self._once("find", image, config) for image in images]

    def refine(self, images: list[Tensor], config: ParserConfig) -> list[Candidates]:
        return [self._once("refine", image, config) for image in images]

    def _once(self, doing: str, image: Tensor, config: ParserConfig) -> Any:
        key = (doing, pixels(image))
        if key not in self._seen:
            self._seen[key] = getattr(self._detector, doing)([image], config)[0]
        return self._seen[key]


def pixels(image: Tensor) -> bytes:
    return image.permute(1, 2, 0).contiguous().numpy().tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden_parser")


@pytest.fixture(scope="module")
def pascal_part(folder: Path) -> Dataset:
    """The sample of Pascal-Part, converted, its images in the order of the golden run."""
    root = folder / "raw"
    lists = root / FOLDERS / "ImageSets/Main"
    lists.mkdir(parents=True)
    for name in ("Annotations_Part", f"{FOLDERS}/JPEGImages"):
        (root / name).symlink_to(PASCAL_PART / name)
    keys = sorted(path.stem for path in (PASCAL_PART / "Annotations_Part").iterdir())
    (lists / "train.txt").write_text("\n".join(keys))
    convert("pascal_part", root, folder / "pascal_part", options={"splits": ["train"]})
    return Dataset.open(folder / "pascal_part", image_root=root, cache=folder / "cache")


@pytest.fixture(scope="module")
def photos(folder: Path, pascal_part: Dataset) -> Dataset:
    """The three query photos with their labels, named as in the golden run."""
    root = folder / "photos"
    (root / "n00000").mkdir(parents=True)
    objects = [item for item in pascal_part.categories if item.kind == "object"]
    writer = DatasetWriter(
        folder / "labelled", name="labelled", categories=objects, converter={}, image_source="photos"
    )
    with writer:
        for case in golden.cases():
            name = f"n00000/{case.meta['query']}.JPEG"
            (root / name).symlink_to(PASCAL_PART / FOLDERS / "JPEGImages" / f"{case.meta['query']}.jpg")
            label = next(item for item in objects if item.source_id == case.meta["cat"] + 1)
            row = ImageRow(
                file_name=name,
                height=case.original[0],
                width=case.original[1],
                source_key=case.meta["query"],
                source_id=100 + case.number,
                pos_category_ids=(label.category_id,),
            )
            writer.write("train", Record(image=row))
    return Dataset.open(folder / "labelled", image_root=root, cache=folder / "cache")


@pytest.fixture(scope="module")
def lent(pascal_part: Dataset) -> dict[int, str]:
    """The parts that are lent, and that the detector knows."""
    return {item.category_id: item.name for item in chosen(pascal_part.categories, kind="part", group="base")}


@pytest.fixture(scope="module")
def detector(lent: dict[int, str]) -> ModelDetector:
    return ModelDetector(golden.formula_detector(), list(lent.values()), golden.text())


@pytest.fixture(scope="module")
def shown() -> Iterator[None]:
    """The detector sees the golden run's pictures."""
    given = {case.picture.tobytes(): case.enlarged for case in golden.cases()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_module, "enlarged", lambda image, side: given[pixels(image)])
        yield


def parser_of(pascal_part: Dataset, lent: dict[int, str], detector: Any) -> Parser:
    split = pascal_part.split("train")
    ids = {record.source_key: record.image_id for record in split}
    index = BaseIndex(
        tokens=torch.from_numpy(
            np.stack([golden.arrays()[f"base_token.{name}"] for name in golden.base_names()])
        ),
        image_ids=torch.tensor([ids[name] for name in golden.base_names()]),
    )
    describer = Describer(golden.formula_vit(), golden.READING)
    base = Base(
        index=index,
        images=BaseImages(split, index, describer, part_ids=set(lent)),
        describer=describer,
        part_names=lent,
    )
    objects = {item.category_id: item for item in pascal_part.categories if item.kind == "object"}
    return Parser(
        CONFIG,
        detector=detector,
        reading=golden.READING,
        base=base,
        by_detector={item.name for item in objects.values() if item.group == "base"},
        labels={number: item.name for number, item in objects.items()},
        categories=pascal_part.categories,
    )


@pytest.fixture(scope="module")
def parser(
    pascal_part: Dataset, lent: dict[int, str], detector: ModelDetector, shown: None
) -> tuple[Parser, Remembering]:
    remembering = Remembering(detector)
    return parser_of(pascal_part, lent, remembering), remembering


@pytest.fixture(scope="module", params=range(2), ids="q{}".format)
def case(request: pytest.FixtureRequest) -> Case:
    return golden.cases(novel=True)[request.param]


@pytest.fixture(scope="module")
def transfer(parser: tuple[Parser, Remembering], photos: Dataset, case: Case) -> Transfer:
    found = parser[0].explain(photos.split("train"), case.number)
    assert found is not None
    return found


@pytest.mark.parametrize("number", range(3))
def test_our_own_enlarged_picture_is_the_originals(number: int) -> None:
    case = golden.cases()[number]
    found = enlarged(torch.from_numpy(case.picture).permute(2, 0, 1), 800)
    difference = (found.int() - case.enlarged.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_the_same_images_are_base_images(pascal_part: Dataset, lent: dict[int, str]) -> None:
    split = pascal_part.split("train")
    objects = {item.category_id for item in pascal_part.categories if item.kind == "object"}
    assert [split[row].source_key for row in base_rows(split, objects, set(lent))] == golden.base_names()


def test_parts_are_lent_by_the_same_image(
    transfer: Transfer, case: Case, pascal_part: Dataset, lent: dict[int, str]
) -> None:
    (lender,) = transfer.lenders
    names = {record.image_id: record.source_key for record in pascal_part.split("train")}
    assert names[lender.image_id] == case.meta["base_filename"]
    assert transfer.lender_cosines[0] == pytest.approx(float(case["query_base_cos"].max()), abs=1e-5)
    numbered = list(lent.values())
    assert [numbered.index(name) + 1 for name in transfer.names] == case.meta["base_cats"]
    assert transfer.size == tuple(case.meta["resized"])


def test_patches_go_to_the_same_place(transfer: Transfer, case: Case) -> None:
    clear = case["nn_2_margin"] > 1e-5
    assert (transfer.partners[0].numpy() == case["nn_2"])[clear].all()
    case.check("sim_2", transfer.cosine[0])


def test_parts_have_the_same_masks_and_boxes(transfer: Transfer, case: Case) -> None:
    masks = transfer.moved.masks
    # A patch whose two best partners are all but equal may be on either side.
    assert np.abs(masks.sum((1, 2)).numpy() - case["transferred_mask_areas"]).max() <= 64
    height, width = case.meta["resized"]
    last = np.unpackbits(case["transferred_mask_last_packbits"])[: height * width].reshape(height, width)
    assert (masks[-1].numpy() != last).mean() < 1e-3
    np.testing.assert_allclose(transfer.moved.boxes, case["transferred_boxes_dino"], atol=1e-3)


def test_the_same_boxes_may_confirm_them_and_do(transfer: Transfer, case: Case) -> None:
    (height, width), (h, w) = case.original, case.meta["resized"]
    scale = np.array([width / w, height / h] * 2)
    candidates = transfer.candidates.boxes.numpy() / scale
    np.testing.assert_allclose(candidates, case["pred_bboxes_dino"], atol=1e-3)
    np.testing.assert_allclose(candidates * 800 / min(h, w), case["detector_boxes_800"], atol=1e-2)
    np.testing.assert_allclose(transfer.overlaps, case["iou_max_val"], atol=1e-4)
    kept = case["iou_max_val"] > 0.3
    assert np.abs(case["iou_max_val"] - 0.3).min() > 1e-3
    assert kept.sum() == case.meta["n_keep"]
    assert transfer.matches.tolist() == np.where(kept, case["iou_max_idx"], -1).tolist()


def check_final(parts: list[Part], case: Case, numbers: list[int]) -> None:
    height, width = case.original
    boxes = np.array([part.box for part in parts]).clip(0, [width, height] * 2)
    np.testing.assert_allclose(boxes, case["final.boxes"], atol=5e-3)
    assert numbers == case["final.classes"].tolist()


def test_transferred_parts_are_the_same(transfer: Transfer, case: Case, lent: dict[int, str]) -> None:
    parts = list(transferred_parts(transfer, case.original))
    numbered = list(lent.values())
    check_final(parts, case, [numbered.index(part.name) + 1 for part in parts])


def test_detected_parts_are_the_same(parser: tuple[Parser, Remembering], lent: dict[int, str]) -> None:
    (case,) = golden.cases(novel=False)
    picture = torch.from_numpy(case.picture).permute(2, 0, 1)
    (found,) = parser[1].find([picture], CONFIG)
    h, w = case.meta["resized"]
    parts = list(detected_parts(found, (h, w), case.original, CONFIG))
    numbered = list(lent.values())
    check_final(parts, case, [numbered.index(part.name) for part in parts])
    np.testing.assert_allclose([part.score for part in parts], case["final.scores"], atol=1e-4)


def exported(parser: Parser, photos: Dataset, categories: list[Category], out: Path) -> dict[str, Any]:
    """The file of ``partseg data export --compat vlpart`` of a parse."""
    writer = DatasetWriter(
        out,
        name="parsed",
        categories=categories,
        converter={"name": "partseg.parsing.parser"},
        image_source="photos",
        origin="parse",
        run_id="golden",
    )
    with writer:
        for record in parser.records(photos.split("train"), range(3)):
            writer.write("train", record)
    path = out.with_suffix(".json")
    command = ["data", "export", str(out), "--compat", "vlpart", "--split", "train", "--out", str(path)]
    result = CliRunner().invoke(make_app(), command)
    assert result.exit_code == 0, result.output
    return dict(json.loads(path.read_text()))


def test_the_file_is_the_originals(
    parser: tuple[Parser, Remembering], photos: Dataset, pascal_part: Dataset, tmp_path: Path
) -> None:
    found = exported(parser[0], photos, pascal_part.categories, tmp_path / "parsed")
    expected = json.loads((golden.FOLDER / "ann_json.json").read_text())
    assert list(found) == list(expected)
    assert found["categories"] == expected["categories"]
    assert found["images"] == expected["images"]
    assert [list(row) for row in found["annotations"]] == [list(row) for row in expected["annotations"]]
    boxes, theirs = ([row.pop("bbox") for row in rows["annotations"]] for rows in (found, expected))
    assert found["annotations"] == expected["annotations"]
    np.testing.assert_allclose(boxes, theirs, atol=5e-3)
