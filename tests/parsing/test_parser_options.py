"""What the parser can do beyond the published one, each option off unless asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partseg.layout import AnnotationRow, Dataset, ImageRow, Record
from partseg.models.config import CascadeStage, load_config
from partseg.models.vlpart import build_model
from partseg.parsing.config import ParserConfig
from partseg.parsing.detector import ModelDetector
from partseg.parsing.parser import certainty, select
from partseg.parsing.parts import Base, Transfer, transfer_confidence
from tests.parsing.conftest import CATEGORIES, FakeDetector, parser_of

CAT, DOG = 1, 4  # rows of images with these labels, of which no base image is a copy
SHARE = st.floats(0, 1, width=32)


def explained(labelled: Dataset, base: Base, detector: FakeDetector, **options: Any) -> Transfer:
    found = parser_of(base, detector, **options).explain(labelled.split("train"), DOG)
    assert found is not None
    return found


def extras(record: Record) -> list[dict[str, Any]]:
    return [dict(row.extra or {}) for row in record.annotations if "path" in (row.extra or {})]


def test_more_neighbours_lend_together(labelled_dataset: Dataset, base: Base, detector: FakeDetector) -> None:
    one = explained(labelled_dataset, base, detector)
    two = explained(labelled_dataset, base, detector, neighbours=2)
    assert {lender.image_id for lender in two.lenders} == {2, 3}
    assert two.lender_cosines[0] == one.lender_cosines[0] >= two.lender_cosines[1]
    assert two.partners.shape == (2, one.partners.shape[1])
    assert two.votes is not None
    assert ((two.votes >= 0.5) & (two.votes <= 1)).all()
    both = explained(labelled_dataset, base, detector, neighbours=2, vote_share=1)
    assert (both.moved.patches.flatten(1).sum(1) <= two.moved.patches.flatten(1).sum(1)).all()
    # No more than there are.
    assert len(explained(labelled_dataset, base, detector, neighbours=9).lenders) == 2
    parser = parser_of(base, detector, neighbours=2)
    (record,) = parser.records(labelled_dataset.split("train"), [DOG])
    assert all("votes" in extra for extra in extras(record))


def test_parts_vote_by_the_name_they_are_written_under(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    """A cat's torso and a horse's body are both a dog's torso; a wheel is nothing a dog has."""
    alone = explained(labelled_dataset, base, detector)
    first = alone.lenders[0].image_id

    class Mixed:
        """The same base image under the names of two objects."""

        def get(self, image_id: int) -> Any:
            own = base.images.get(first)
            return own if image_id == first else replace(own, category_ids=(12, 13))

    names = {2: "cat:head", 3: "cat:torso", 12: "car:wheel", 13: "horse:body"}
    mixed = replace(base, images=Mixed(), part_names=names)
    found = explained(labelled_dataset, mixed, detector, neighbours=2)
    assert found.names == ("cat:head", "cat:torso", "car:wheel")
    assert found.lent_by == (0, 0, 1)
    assert torch.equal(found.moved.patches[:2], alone.moved.patches)
    (record,) = parser_of(mixed, detector, neighbours=2).records(labelled_dataset.split("train"), [DOG])
    assert [row.category_id for row in record.annotations] == [4, 5, 6]


def test_lenders_that_agree_give_what_one_gives(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    tokens, ids = base.index.tokens[:1].repeat(3, 1), torch.tensor([2, 2, 2])
    same = replace(base, index=replace(base.index, tokens=tokens, image_ids=ids))
    single = replace(base, index=replace(base.index, tokens=tokens[:1], image_ids=ids[:1]))
    one = explained(labelled_dataset, single, detector)
    three = explained(labelled_dataset, same, detector, neighbours=3)
    assert three.names == one.names
    assert torch.equal(three.moved.patches, one.moved.patches)
    assert torch.equal(three.matches, one.matches)
    torch.testing.assert_close(three.confidence, one.confidence)


def test_patches_may_be_asked_to_find_their_way_back(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    free = explained(labelled_dataset, base, detector)
    sizes, shares = [], []
    for within in (0, 2, 100):
        found = explained(labelled_dataset, base, detector, mutual_within=within)
        assert found.mutual is not None
        sizes.append(found.moved.patches.flatten(1).sum(1))
        shares.append(found.mutual)
    assert (sizes[0] <= sizes[1]).all()
    assert (sizes[1] <= sizes[2]).all()
    assert (sizes[0] < sizes[2]).any()
    assert (shares[0] <= shares[1]).all()
    assert torch.equal(sizes[2], free.moved.patches.flatten(1).sum(1))
    assert shares[2].tolist() == [1, 1]


def test_base_images_that_are_not_similar_enough_lend_nothing(
    labelled_dataset: Dataset, base: Base, detector: FakeDetector
) -> None:
    cosines = explained(labelled_dataset, base, detector, neighbours=2).lender_cosines
    between = (cosines[0] + cosines[1]) / 2
    assert len(explained(labelled_dataset, base, detector, neighbours=2, min_similarity=between).lenders) == 1
    nothing = explained(labelled_dataset, base, detector, min_similarity=1)
    assert (nothing.lenders, nothing.names, len(nothing.moved.patches)) == ((), (), 0)
    assert nothing.partners.shape == (0, len(nothing.query.saliency))
    (record,) = parser_of(base, detector, min_similarity=1).records(labelled_dataset.split("train"), [DOG])
    assert [finding.reason for finding in record.findings] == ["no-part-found"]


def test_uncertain_parts_are_left_out(labelled_dataset: Dataset, base: Base, detector: FakeDetector) -> None:
    split = labelled_dataset.split("train")
    everything = parser_of(base, detector).records(split, range(9))
    sure = [extra.get("confidence", 1) for record in everything for extra in extras(record)]
    limit = sorted(sure)[len(sure) // 3]
    kept = parser_of(base, detector, min_confidence=limit + 1e-3).records(split, range(9))
    found = [extra.get("confidence", 1) for record in kept for extra in extras(record)]
    assert sorted(found) == sorted(value for value in sure if value > limit + 1e-3)
    # The detector's parts have scores of 0.9 and 0.8.
    (cat,) = parser_of(base, detector, min_confidence=0.85).records(split, [CAT])
    assert [row.score for row in cat.annotations[1:]] == pytest.approx([0.9])


@given(st.lists(SHARE, min_size=5, max_size=5), st.integers(0, 4), SHARE)
def test_confidence_is_a_share_and_grows_with_all_it_is_made_of(
    values: list[float], place: int, more: float
) -> None:
    def confidence(numbers: list[float]) -> float:
        return float(transfer_confidence(*torch.tensor(numbers)[:, None])[0])

    better = [max(value, more) if i == place else value for i, value in enumerate(values)]
    assert 0 <= confidence(values) <= confidence(better) <= 1
    assert confidence([-0.5, *values[1:]]) == 0
    assert confidence([1, 1, 1, 1, 1]) == 1
    assert confidence([0.25, 0.25, 1, 1, 1]) == 0.25  # a number all agree on is itself


def image(number: int, label: int, *confidences: float) -> Record:
    rows = [
        AnnotationRow(
            category_id=2,
            bbox_xywh=(0, 0, 1, 1),
            area=1,
            score=0.5,
            extra={"path": "transfer", "confidence": value},
        )
        for value in confidences
    ]
    whole = AnnotationRow(
        category_id=label, bbox_xywh=(0, 0, 1, 1), area=1, score=1.0, extra={"extent": "union of the parts"}
    )
    row = ImageRow(
        file_name=f"{number}.png", height=1, width=1, source_key=str(number), pos_category_ids=(label,)
    )
    return Record(image=row, annotations=(whole, *rows))


def test_how_certain_an_image_is() -> None:
    assert certainty(image(0, 1, 0.2, 0.8)) == pytest.approx(0.5)
    assert certainty(Record.dropped("0", "no-part-found", "")) == 0
    detected = AnnotationRow(
        category_id=2, bbox_xywh=(0, 0, 1, 1), area=1, score=0.75, extra={"path": "detector"}
    )
    assert certainty(replace(image(0, 1), annotations=(detected,))) == 0.75


def test_a_quota_keeps_the_most_certain_images_of_each_label() -> None:
    records = [image(0, 1, 0.2), image(1, 4, 0.1), image(2, 1, 0.9, 0.5), image(3, 1, 0.7)]
    assert select(records, ParserConfig()) == records
    kept = select(records, ParserConfig(images_per_class=1))
    assert kept[1:3] == records[1:3]  # of two that are equally certain the first
    for row in (0, 3):
        assert kept[row].image is None
        (finding,) = kept[row].findings
        assert (finding.source_key, finding.reason) == (str(row), "beyond-quota")
        assert finding.image_dropped


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.25, 0.5])), max_size=12), st.integers(1, 5)
)
def test_a_quota_changes_neither_order_nor_what_it_keeps(found: list[tuple[int, float]], quota: int) -> None:
    records = [
        image(i, label, confidence) if confidence else Record.dropped(str(i), "no-part-found", "nothing")
        for i, (label, confidence) in enumerate(found)
    ]
    config = ParserConfig(images_per_class=quota)
    kept = select(records, config)
    assert select(kept, config) == kept
    for label in (1, 2, 3):
        own = [i for i, (other, confidence) in enumerate(found) if other == label and confidence]
        stay = [i for i in own if kept[i].image is not None]
        assert len(stay) == min(quota, len(own))
        assert stay == sorted(sorted(own, key=lambda i: (-found[i][1], i))[:quota])
    for before, after in zip(records, kept, strict=True):
        if after != before:
            assert [finding.reason for finding in after.findings] == ["beyond-quota"]


def test_a_cascade_can_confirm_transferred_parts(labelled_dataset: Dataset, base: Base) -> None:
    """The published parser cannot: its cascades have no way to refine proposals without classes."""
    torch.manual_seed(0)
    config = load_config(Path(__file__).parents[2] / "configs/models/tiny.yaml")
    stages = tuple(CascadeStage(positive_iou=iou, box_weights=(20, 20, 10, 10)) for iou in (0.6, 0.7))
    roi = config.roi.model_copy(update={"cascade": stages})
    model = build_model(config.model_copy(update={"roi": roi})).eval()
    names = [category.name for category in CATEGORIES if category.group == "base"]
    detector = ModelDetector(model, names, torch.randn(len(names), config.text_dim))
    parser = parser_of(base, detector, match_iou=0)
    split = labelled_dataset.split("train")
    records = parser.records(split, [0, 2, 4])
    found = [row for record in records for row in record.annotations if row.category_id in (5, 6)]
    assert found
    transfer = parser.explain(split, 0)
    assert transfer is not None
    assert set(transfer.candidates.names) <= set(names)
    assert len(transfer.candidates.boxes) > 1
