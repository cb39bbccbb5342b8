from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from partseg.errors import LayoutError, StoreError
from partseg.layout import Dataset, DatasetWriter, rle_to_mask
from partseg.layout.checks import audit
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.descriptors import Describer
from partseg.parsing.detector import suppress
from partseg.parsing.index import BaseImages, BaseIndex, build_index
from partseg.parsing.parser import parse
from partseg.parsing.parts import Base
from pipelines.inputs import chosen
from tests.parsing.conftest import CATEGORIES, SIZE, FakeDetector, masks

PARTS = {2, 3}


def base_of(dataset: Dataset, describer: Describer) -> Base:
    split = dataset.split("train")
    index = build_index(split, describer, object_ids={1, 4}, part_ids=PARTS)
    return Base(
        index=index,
        images=BaseImages(split, index, describer, part_ids=PARTS),
        describer=describer,
        part_names={c.category_id: c.name for c in CATEGORIES if c.kind == "part"},
    )


def run(
    labelled: Dataset,
    base: Base | None,
    detector: FakeDetector,
    writer: DatasetWriter,
    out: Path,
    *,
    by_detector: tuple[str, ...] = ("cat",),
    finds_objects: bool = False,
    **options: Any,
) -> tuple[dict[str, int], Dataset]:
    batch = options.pop("batch", 8)
    with writer:
        counts = parse(
            ParserConfig(**options),
            labelled.split("train"),
            detector=detector,
            reading=PictureSize(short_side=SIZE),
            base=base,
            by_detector=by_detector,
            finds_objects=finds_objects,
            labels={1: "cat", 4: "dog"},
            writer=writer,
            split="train",
            categories=CATEGORIES,
            batch=batch,
        )
    return counts, Dataset.open(out, image_root=labelled.image_root, cache=labelled.cache)


@pytest.fixture
def parsed(
    tmp_path: Path,
    base_dataset: Dataset,
    labelled_dataset: Dataset,
    describer: Describer,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> Callable[..., tuple[dict[str, int], Dataset]]:
    def make(name: str = "out", **options: Any) -> tuple[dict[str, int], Dataset]:
        base = base_of(base_dataset, describer)
        return run(labelled_dataset, base, detector, open_writer(name), tmp_path / name, **options)

    return make


def test_only_images_of_one_object_are_base_images(base_dataset: Dataset, describer: Describer) -> None:
    index = build_index(base_dataset.split("train"), describer, object_ids={1, 4}, part_ids=PARTS)
    assert index.image_ids.tolist() == [2, 3]
    assert index.tokens.shape == (2, 32)
    with pytest.raises(LayoutError, match="no image can serve"):
        build_index(base_dataset.split("train"), describer, object_ids={1}, part_ids={5})


def test_only_parts_of_base_objects_are_lent() -> None:
    assert [c.category_id for c in chosen(CATEGORIES, kind="part", group="base")] == [2, 3]
    assert [c.category_id for c in chosen(CATEGORIES, kind="part")] == [2, 3, 5, 6]


def test_an_index_survives_the_disk(tmp_path: Path, base_dataset: Dataset, describer: Describer) -> None:
    index = base_of(base_dataset, describer).index
    index.save(tmp_path / "index")
    again = BaseIndex.load(tmp_path / "index")
    assert torch.equal(again.tokens, index.tokens)
    assert torch.equal(again.image_ids, index.image_ids)
    with pytest.raises(StoreError, match="not a base index"):
        BaseIndex.load(tmp_path)


def test_every_image_is_either_labelled_or_explained(
    parsed: Callable[..., tuple[dict[str, int], Dataset]],
) -> None:
    counts, dataset = parsed()
    split = dataset.split("train")
    findings = split.findings().to_pylist()
    assert counts["images"] == 10
    assert len(split) + len(findings) == 10
    assert [row["reason"] for row in findings if row["source_key"] == "9"] == ["image-without-label"]
    assert counts["by_detector"] == 4
    assert counts["by_transfer"] == 5
    assert audit(dataset) == []


def test_detected_parts_are_renamed_and_hang_under_the_label(
    parsed: Callable[..., tuple[dict[str, int], Dataset]],
) -> None:
    _, dataset = parsed()
    record = next(r for r in dataset.split("train") if r.source_key == "1")
    assert record.category_ids.tolist() == [1, 2, 3]  # cat, cat:head, cat:torso (found as "body")
    assert record.parent_rows.tolist() == [-1, 0, 0]
    assert record.scores.tolist() == pytest.approx([0.9, 0.9, 0.8])
    assert record.origin == ["parse"] * 3
    assert record.boxes_xywh[1].tolist() == [11, 6, 12, 12]
    assert record.boxes_xywh[0].tolist() == [7, 6, 28, 34]
    assert record.rles[2] is None
    assert record.pos_category_ids.tolist() == [1]


def test_transferred_parts_take_the_detectors_box_and_keep_their_own_mask(
    parsed: Callable[..., tuple[dict[str, int], Dataset]],
) -> None:
    _, dataset = parsed()
    record = next(r for r in dataset.split("train") if r.source_key == "0")
    table = dict(zip(record.category_ids.tolist(), range(3), strict=True))
    assert set(table) == {4, 5, 6}  # dog, dog:head, dog:torso: lent by a cat
    assert record.boxes_xywh[table[5]].tolist() == [10, 6, 12, 12]
    for part, truth in zip((5, 6), masks(0), strict=True):
        rle = record.rles[table[part]]
        assert rle is not None
        found = rle_to_mask(rle, 48, 48)
        assert (found & truth).sum() / (found | truth).sum() > 0.5


def test_without_base_images_everything_goes_to_the_detector(
    tmp_path: Path,
    labelled_dataset: Dataset,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    counts, dataset = run(
        labelled_dataset,
        None,
        detector,
        open_writer("out"),
        tmp_path / "out",
        by_detector=("cat", "dog"),
    )
    assert (counts["by_detector"], counts["by_transfer"]) == (9, 0)
    assert counts["parts"] == 2 * len(dataset.split("train")) == 18


def test_objects_that_are_found_stand_for_themselves(
    tmp_path: Path,
    labelled_dataset: Dataset,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    """As in the published files of PACO: a cat in an image of a dog is a cat, and nothing else is made up."""
    detector.names = ["cat:head", "cat"]
    counts, dataset = run(
        labelled_dataset,
        None,
        detector,
        open_writer("out"),
        tmp_path / "out",
        by_detector=("cat", "dog"),
        finds_objects=True,
    )
    dog = next(r for r in dataset.split("train") if r.source_key == "0")
    assert dog.pos_category_ids.tolist() == [4]
    assert sorted(dog.category_ids.tolist()) == [1, 5]  # cat, dog:head
    assert dog.parent_rows.tolist() == [-1, -1]
    assert counts["parts"] == counts["images_with_parts"] == 9
    assert audit(dataset) == []


def test_boxes_nobody_confirms_are_dropped(parsed: Callable[..., tuple[dict[str, int], Dataset]]) -> None:
    _, dataset = parsed(match_iou=0.999)
    dogs = [r for r in dataset.split("train") if 4 in r.pos_category_ids]
    assert not dogs
    reasons = {row["source_key"]: row["reason"] for row in dataset.split("train").findings().to_pylist()}
    assert reasons["0"] == "no-part-found"


def test_a_box_taken_for_another_part_confirms_only_if_any_box_may(
    parsed: Callable[..., tuple[dict[str, int], Dataset]], detector: FakeDetector
) -> None:
    detector.candidate_names = ["cat:body", "cat:head"]  # the wrong way round
    counts = {rule: parsed(rule, confirmed_by=rule)[0]["parts"] for rule in ("box", "part")}
    detector.candidate_names = ["cat:head", "cat:body"]
    right = parsed("right", confirmed_by="part")[0]["parts"]
    assert counts["part"] < right <= counts["box"]


def test_the_batch_size_changes_no_label(parsed: Callable[..., tuple[dict[str, int], Dataset]]) -> None:
    _, one = parsed("one", batch=1)
    _, eight = parsed("eight", batch=8)
    assert one.manifest.splits == eight.manifest.splits


def test_what_the_detector_sees_does_not_change_where_things_are(
    parsed: Callable[..., tuple[dict[str, int], Dataset]],
) -> None:
    _, small = parsed("small", detector_sees="descriptor")
    _, full = parsed("full", detector_sees="original")
    for a, b in zip(small.split("train"), full.split("train"), strict=True):
        assert np.abs(a.boxes_xywh - b.boxes_xywh).max() <= 1


def test_unknown_labels_are_an_error(
    tmp_path: Path,
    base_dataset: Dataset,
    labelled_dataset: Dataset,
    describer: Describer,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    with pytest.raises(LayoutError, match="no category named 'dog'"), open_writer("none") as writer:
        parse(
            ParserConfig(),
            labelled_dataset.split("train"),
            detector=detector,
            reading=PictureSize(short_side=SIZE),
            base=base_of(base_dataset, describer),
            by_detector=set(),
            labels={1: "cat", 4: "dog"},
            writer=writer,
            split="train",
            categories=CATEGORIES[:3],
        )


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 5, 5, 9]])
    kept = suppress(boxes, torch.tensor([0.2, 0.9, 0.5, 1.0]), ParserConfig(nms_iou=0.3))
    assert kept.tolist() == [1, 2]
