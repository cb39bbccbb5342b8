"""What the parser writes for images that only have a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from partseg.errors import LayoutError
from partseg.layout import Dataset, DatasetWriter, Record, rle_to_mask
from partseg.layout.checks import audit
from partseg.layout.export.vlpart import to_vlpart
from partseg.parsing.parser import Parser
from partseg.parsing.parts import Base
from pipelines.inputs import chosen
from tests.parsing.conftest import CATEGORIES, SIZE, FakeDetector, masks, parser_of

CAT, DOG = 1, 0  # rows of images with these labels


def written(labelled: Dataset, parser: Parser, writer: DatasetWriter, out: Path) -> Dataset:
    """All images of a dataset, parsed and written."""
    split = labelled.split("train")
    with writer:
        for record in parser.records(split, range(len(split))):
            writer.write("train", record)
    return Dataset.open(out, image_root=labelled.image_root, cache=labelled.cache)


def parse(labelled: Dataset, parser: Parser, row: int) -> Record:
    (record,) = parser.records(labelled.split("train"), [row])
    return record


def test_only_parts_of_base_objects_are_lent() -> None:
    assert [c.category_id for c in chosen(CATEGORIES, kind="part", group="base")] == [2, 3]
    assert [c.category_id for c in chosen(CATEGORIES, kind="part")] == [2, 3, 5, 6]


def test_every_image_is_either_labelled_or_explained(
    tmp_path: Path,
    labelled_dataset: Dataset,
    base: Base,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    parser = parser_of(base, detector)
    dataset = written(labelled_dataset, parser, open_writer("out"), tmp_path / "out")
    split = dataset.split("train")
    findings = split.findings().to_pylist()
    assert len(split) + len(findings) == 10
    assert [row["reason"] for row in findings if row["source_key"] == "9"] == ["image-without-label"]
    assert audit(dataset) == []


def test_detected_parts_are_renamed_and_hang_under_the_label(
    tmp_path: Path,
    labelled_dataset: Dataset,
    base: Base,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    parser = parser_of(base, detector)
    dataset = written(labelled_dataset, parser, open_writer("out"), tmp_path / "out")
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
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    dog = parse(labelled_dataset, parser_of(base, detector), DOG)
    rows = {row.category_id: row for row in dog.annotations}
    assert set(rows) == {4, 5, 6}  # dog, dog:head, dog:torso: lent by a cat
    assert rows[5].bbox_xywh == (10, 6, 12, 12)
    for part, truth in zip((5, 6), masks(0), strict=True):
        mask = rle_to_mask(rows[part].rle or b"", SIZE, SIZE)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5
        assert rows[part].extra is not None
        assert set(rows[part].extra) == {
            "path",
            "base_image_id",
            "base_similarity",
            "box_overlap",
            "confidence",
        }


def test_without_base_images_everything_goes_to_the_detector(
    labelled_dataset: Dataset, detector: FakeDetector
) -> None:
    parser = parser_of(None, detector, by_detector=("cat", "dog"))
    records = parser.records(labelled_dataset.split("train"), range(10))
    assert [len(record.annotations) for record in records] == [3] * 9 + [0]
    assert parser.explain(labelled_dataset.split("train"), DOG) is None


def test_objects_that_are_found_stand_for_themselves(
    tmp_path: Path,
    labelled_dataset: Dataset,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    """As in the published files of PACO: a cat in an image of a dog is a cat, and nothing else is made up."""
    detector.names = ["cat:head", "cat"]
    parser = parser_of(None, detector, by_detector=("cat", "dog"), finds_objects=True)
    dataset = written(labelled_dataset, parser, open_writer("out"), tmp_path / "out")
    dog = next(r for r in dataset.split("train") if r.source_key == "0")
    assert dog.pos_category_ids.tolist() == [4]
    assert sorted(dog.category_ids.tolist()) == [1, 5]  # cat, dog:head
    assert dog.parent_rows.tolist() == [-1, -1]
    assert audit(dataset) == []


def test_a_parse_is_exported_as_the_original_writes_it(
    tmp_path: Path,
    labelled_dataset: Dataset,
    base: Base,
    detector: FakeDetector,
    open_writer: Callable[[str], DatasetWriter],
) -> None:
    parser = parser_of(base, detector)
    dataset = written(labelled_dataset, parser, open_writer("out"), tmp_path / "out")
    content = to_vlpart(dataset, "train")
    assert list(content) == ["images", "annotations", "categories"]
    assert [row["id"] for row in content["categories"]] == [2, 3, 5, 6]  # no objects
    assert [row["id"] for row in content["annotations"]] == list(range(1, 19))
    assert content["images"][1] == {"file_name": "1.png", "id": 2, "height": SIZE, "width": SIZE}
    own = [row for row in content["annotations"] if row["image_id"] == 2]
    assert [(row["category_id"], row["bbox"]) for row in own] == [
        (2, [11, 6, 12, 12]),
        (3, [7, 18, 28, 22]),
    ]


def test_objects_are_exported_where_they_were_looked_for(
    tmp_path: Path,
    labelled_dataset: Dataset,
    detector: FakeDetector,
    open_writer: Callable[..., DatasetWriter],
) -> None:
    """As in PACO, whose objects and parts are numbered together; ids of the sources come back."""
    detector.names = ["cat:head", "cat"]
    numbered = [replace(item, source_id=item.category_id + 100) for item in CATEGORIES]
    parser = parser_of(None, detector, by_detector=("cat", "dog"), finds_objects=True, categories=numbered)
    dataset = written(labelled_dataset, parser, open_writer("out", numbered), tmp_path / "out")
    content = to_vlpart(dataset, "train")
    assert [row["id"] for row in content["categories"]] == list(range(101, 107))
    assert [row["category_id"] for row in content["annotations"][:2]] == [105, 101]


def test_boxes_nobody_confirms_are_dropped(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    dog = parse(labelled_dataset, parser_of(base, detector, match_iou=0.999), DOG)
    assert dog.image is None
    assert [finding.reason for finding in dog.findings] == ["no-part-found"]


def test_a_box_taken_for_another_part_confirms_only_if_any_box_may(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    def found(rule: str) -> int:
        parser = parser_of(base, detector, confirmed_by=rule)
        return sum(len(r.annotations) for r in parser.records(labelled_dataset.split("train"), range(10)))

    right = found("detection")
    detector.candidate_names = ["cat:body", "cat:head"]  # the wrong way round
    assert found("detection") < right <= found("box")


def test_an_image_gives_the_same_alone_and_in_any_company(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    parser, split = parser_of(base, detector), labelled_dataset.split("train")
    together = parser.records(split, range(10))
    assert [parse(labelled_dataset, parser, row) for row in range(10)] == together
    assert parser.records(split, [7, 2, 2]) == [together[7], together[2], together[2]]


def test_what_the_detector_sees_does_not_change_where_things_are(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    small = parse(labelled_dataset, parser_of(base, detector, detector_sees="descriptor"), CAT)
    full = parse(labelled_dataset, parser_of(base, detector, detector_sees="original"), CAT)
    for a, b in zip(small.annotations, full.annotations, strict=True):
        assert np.abs(np.subtract(a.bbox_xywh, b.bbox_xywh)).max() <= 1


def test_explaining_a_transfer_tells_what_was_written(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    parser, split = parser_of(base, detector), labelled_dataset.split("train")
    transfer = parser.explain(split, DOG)
    assert transfer is not None
    assert parser.explain(split, CAT) is None
    assert transfer.size == (SIZE, SIZE)
    assert transfer.names == ("cat:head", "cat:torso")
    assert [lender.image_id for lender in transfer.lenders] == [2]
    patches = SIZE // 4
    assert transfer.partners.shape == transfer.cosine.shape == (1, patches * patches)
    assert transfer.moved.masks.shape == (2, SIZE, SIZE)
    assert (transfer.mutual, transfer.votes) == (None, None)
    rows = parse(labelled_dataset, parser, DOG).annotations[1:]
    assert transfer.matches.tolist() == [0, 1]
    for i, row in enumerate(rows):
        assert row.extra is not None
        assert row.extra["confidence"] == pytest.approx(float(transfer.confidence[i]), abs=1e-4)
        x, y, w, h = row.bbox_xywh
        assert transfer.candidates.boxes[i].tolist() == [x, y, x + w, y + h]


def test_unknown_labels_are_an_error(labelled_dataset: Dataset, base: Base, detector: FakeDetector) -> None:
    parser = parser_of(base, detector, by_detector=(), categories=CATEGORIES[:3])
    with pytest.raises(LayoutError, match="no category named 'dog'"):
        parse(labelled_dataset, parser, DOG)
