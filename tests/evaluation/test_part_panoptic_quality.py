from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.errors import LayoutError
from partseg.evaluation.part_maps import PartMap
from partseg.evaluation.part_panoptic_quality import PartPanopticQuality, PartPanopticResult
from partseg.evaluation.part_specs import PUBLISHED, PartClass, PartSpec, published_spec, spec_of
from partseg.evaluation.predictions import PredictionError
from partseg.layout import label_map_to_runs
from partseg.layout.records import Category
from partseg.layout.uids import pack_uids, unpack_uids
from tests.golden.panoptic import SPECS, part_case, part_expected

# a car with two parts (the files have a third, which nobody evaluates), a tree without, the sky
TINY = PartSpec(
    name="tiny",
    classes=(
        PartClass(7, "car", True, ((1, "wheel"), (2, "body"))),
        PartClass(8, "tree", True, ()),
        PartClass(9, "sky", False, ()),
    ),
    folded=((701, 1), (702, 2), (704, 2)),
)
GROUPS = (("all", "", "n"), ("parts", "_parts", "n_p"), ("noparts", "_noparts", "n_np"))


def channels(pixels: Any) -> PartMap:
    return PartMap(labels=np.asarray(pixels, np.uint8), encoding="channels")


def golden_state(spec: str, images: Any = range(6), protocol: Any = "panoptic_parts") -> PartPanopticQuality:
    true, predicted = part_case(spec)
    state = PartPanopticQuality(published_spec(spec), protocol)
    for image in images:
        state.add(image, true[image], channels(predicted[image]))
    return state


@pytest.mark.parametrize("repository", ["tapps", "main"])
@pytest.mark.parametrize("spec", SPECS)
def test_the_numbers_are_the_originals(spec: str, repository: str) -> None:
    expected = part_expected(repository).get(spec)
    if expected is None:
        assert (spec, repository) == ("ppp_107", "main")  # only TAPPS has this specification
        return
    result = golden_state(spec).result()
    for (group, suffix, n), row in zip(GROUPS, expected["summary"], strict=True):
        found = getattr(result, group)
        assert found.n == row[n]
        assert found.quality == pytest.approx(row[f"PartPQ{suffix}"], abs=1e-9)
        assert found.segmentation == pytest.approx(row[f"PartSQ{suffix}"], abs=1e-9)
        assert found.recognition == pytest.approx(row[f"PartRQ{suffix}"], abs=1e-9)
    by_sid = expected["per_class_by_eval_sid"]
    assert {str(item.sid) for item in result.classes} == set(by_sid)
    for item in result.classes:
        row = by_sid[str(item.sid)]
        # the original says 0 of classes that do not occur
        assert (item.partpq or 0.0) == pytest.approx(row["PartPQ"], abs=1e-9)
        assert (item.partsq or 0.0) == pytest.approx(row["PartSQ"], abs=1e-9)
        assert (item.partrq or 0.0) == pytest.approx(row["PartRQ"], abs=1e-9)


def test_a_result_goes_through_json_and_names_its_metrics() -> None:
    result = golden_state("ppp_57").result()
    assert PartPanopticResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result
    assert result.metrics()["part_panoptic/partpq_parts"] == result.parts.quality
    assert len(result.metrics()) == 9


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(SPECS),
    st.sampled_from(["panoptic_parts", "correct"]),
    st.permutations(range(6)),
    st.lists(st.integers(0, 6), max_size=3),
)
def test_order_and_ranks_change_no_bit(spec: str, protocol: Any, order: list[int], cuts: list[int]) -> None:
    merged = PartPanopticQuality(published_spec(spec), protocol)
    for a, b in pairwise(sorted([0, 6, *cuts])):
        merged = golden_state(spec, order[a:b], protocol).merge(merged)
    assert merged.result() == golden_state(spec, protocol=protocol).result()


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(SPECS), st.integers(0, 5), st.booleans())
def test_runs_uids_and_channels_say_the_same(spec: str, image: int, runs: bool) -> None:
    true, predicted = (maps[image] for maps in part_case(spec))
    sids, iids, pids = (predicted[..., i].astype(np.int64) for i in range(3))
    sids[sids == 255] = 0
    uids = pack_uids(
        sids, np.where(sids > 0, iids, -1), np.where((sids > 0) & (pids > 0) & (pids < 255), pids, -1)
    )
    states = []
    for label_map in (
        PartMap(labels=label_map_to_runs(uids) if runs else uids, encoding="uids"),
        channels(np.dstack([sids, iids, np.where(pids > 0, pids, 255)])),
    ):
        state = PartPanopticQuality(published_spec(spec))
        state.add(0, label_map_to_runs(true) if runs else true, label_map)
        states.append(state.result())
    assert states[0] == states[1]


@pytest.mark.parametrize("spec", SPECS)
def test_the_truth_is_perfect(spec: str) -> None:
    state = PartPanopticQuality(published_spec(spec), "correct")
    for number, uids in enumerate(part_case(spec)[0]):
        state.add(number, uids, PartMap(labels=uids, encoding="uids", folded=False))
    result = state.result()
    assert result.all.n > 10
    for item in result.classes:
        assert item.partpq in (None, 1.0)
        assert (item.fp, item.fn) == (0, 0)


def by_masks(uids: np.ndarray, predicted: np.ndarray) -> dict[int, list[float]]:
    """PartPQ by its definition, with a mask for every segment: tp, fp, fn, IoU sum by class."""
    ids = unpack_uids(uids)
    parts = np.select([np.isin(ids.sids_pids, (702, 704)), ids.sids_pids == 701], [2, 1], 0)
    void = ~np.isin(ids.sids, (7, 8, 9))
    counts = {}
    for item in TINY.classes:
        own = ids.sids == item.sid
        crowd = own & (ids.iids < 0) & item.is_thing
        iids = ids.iids if item.is_thing else np.zeros_like(ids.iids)
        segments = [own & (iids == value) & ~crowd for value in np.unique(iids[own])]
        segments = [segment for segment in segments if segment.any()]
        if item.parts:
            unlabelled = [segment for segment in segments if not parts[segment].any()]
            crowd = np.logical_or.reduce([crowd, *unlabelled])
            segments = [segment for segment in segments if parts[segment].any()]
        here = predicted[..., 0] == item.sid
        iids = predicted[..., 1] * item.is_thing
        found = [here & (iids == value) for value in np.unique(iids[here])]
        tp, iou_sum, left = 0, 0.0, list(range(len(found)))
        for segment in segments:
            for index in left:
                mask = found[index] & ~void
                iou = (segment & mask).sum() / (segment | mask).sum()
                if iou <= 0.5:
                    continue
                left.remove(index)
                tp += 1
                if item.parts:
                    counted = ~void & ~crowd & ~(segment & (parts == 0))
                    one = np.where(segment, parts, 0)[counted]
                    two = np.where(found[index], predicted[..., 2], 0)[counted]
                    present = sorted({*one.tolist(), *two.tolist()} - {0, 255})
                    iou = np.mean(
                        [((one == k) & (two == k)).sum() / ((one == k) | (two == k)).sum() for k in present]
                    )
                iou_sum += iou
                break
        fp = sum((void | crowd)[found[index]].mean() <= 0.5 for index in left)
        counts[item.sid] = [tp, fp, len(segments) - tp, iou_sum]
    return counts


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_the_correct_protocol_is_the_definition(seed: int, height: int, width: int, runs: bool) -> None:
    random = np.random.default_rng(seed)
    # void, a class that is not evaluated, crowds, instance 0, parts listed or not, an explicit part 0
    choices = [0, 5, 7, 7000, 7001, 700001, 700002, 700101, 700104, 700103, 700100, 8, 8001, 8002, 9, 9001]
    kinds = random.choice(choices, 5)
    place = random.integers(0, 5, (height, width))
    if seed % 2:
        place = np.sort(place, axis=seed // 2 % 2)
    uids = kinds[place]
    own = unpack_uids(kinds, missing=0)
    values = np.stack([own.sids, own.iids, random.choice([0, 1, 2, 3, 255], 5)], 1)
    wrong = random.random(place.shape) < 0.2
    predicted = values[np.where(wrong, random.integers(0, 5, place.shape), place)].astype(np.uint8)
    state = PartPanopticQuality(TINY, "correct")
    state.add(1, label_map_to_runs(uids) if runs else uids, channels(predicted))
    totals, expected = state.counts.totals(), by_masks(uids, predicted)
    for sid, (tp, fp, fn, iou) in expected.items():
        assert (totals[sid].tp, totals[sid].fp, totals[sid].fn) == (tp, fp, fn)
        assert totals[sid].iou == pytest.approx(iou, abs=1e-12)


def column(*values: int) -> np.ndarray:
    return np.array(values, np.int64).reshape(-1, 1)


def car(uids: np.ndarray, pixels: list[tuple[int, int, int]], protocol: Any) -> tuple[int, int, int, float]:
    state = PartPanopticQuality(TINY, protocol)
    state.add(1, uids, channels([[pixel] for pixel in pixels]))
    item = state.counts.totals()[7]
    return item.tp, item.fp, item.fn, item.iou


@pytest.mark.parametrize(("protocol", "iou"), [("panoptic_parts", (0.5 + 1 + 1) / 3), ("correct", 0.75)])
def test_background_counts_as_a_part_of_the_original_alone(protocol: str, iou: float) -> None:
    uids = column(700101, 700101, 700102, 9, 9, 9)
    # half of the wheel is not known, which is no part, but a miss
    pixels = [(7, 3, 1), (7, 3, 255), (7, 3, 2), (9, 0, 0), (9, 0, 0), (9, 0, 0)]
    assert car(uids, pixels, protocol) == (1, 0, 0, pytest.approx(iou))


@pytest.mark.parametrize(("protocol", "expected"), [("panoptic_parts", (0, 1, 2)), ("correct", (1, 0, 0))])
def test_stuff_has_instances_in_the_original_alone(protocol: Any, expected: tuple[int, ...]) -> None:
    state = PartPanopticQuality(TINY, protocol)
    state.add(1, column(9001, 9001, 9, 9), channels([[(9, 1, 0)]] * 4))
    item = state.counts.totals()[9]
    assert (item.tp, item.fp, item.fn) == expected


@pytest.mark.parametrize(("protocol", "iou"), [("panoptic_parts", (1 + 0 + 1) / 3), ("correct", 1.0)])
def test_parts_that_no_table_lists(protocol: str, iou: float) -> None:
    uids = column(700101, 700101, 700103, 9)  # part 3 of a car
    pixels = [(7, 3, 1), (7, 3, 1), (7, 3, 255), (9, 0, 0)]
    assert car(uids, pixels, protocol) == (1, 0, 0, pytest.approx(iou))


@pytest.mark.parametrize("protocol", ["panoptic_parts", "correct"])
def test_segments_without_a_part_and_classes_nobody_evaluates(protocol: str) -> None:
    uids = column(7001, 7001, 5, 5)
    assert car(uids, [(7, 3, 1)] * 4, protocol) == (0, 0, 0, 0.0)
    assert car(uids, [(200, 3, 1)] * 4, protocol) == (0, 0, 0, 0.0)


def test_nothing_predicted_and_nothing_true() -> None:
    state = PartPanopticQuality(TINY)
    state.add("a", column(700101, 9), channels([[(0, 0, 0)], [(255, 0, 0)]]))
    result = state.result()
    assert [item.partpq for item in result.classes] == [0.0, None, 0.0]
    assert result.parts.n == 1
    empty = PartPanopticQuality(TINY).result()
    assert empty.all.quality is None
    assert empty.metrics() == {}


def test_maps_that_cannot_be_used() -> None:
    state = PartPanopticQuality(TINY)
    with pytest.raises(PredictionError, match="has 1 x 3 pixels, the image 1 x 2") as error:
        state.add(1, column(9, 9), channels([[(0, 0, 0)]] * 3), where="maps/a.png")
    assert str(error.value).startswith("maps/a.png")
    with pytest.raises(PredictionError, match="500 is not a panoptic-parts uid"):
        state.add(1, column(9, 9), PartMap(labels=column(9, 500), encoding="uids"))
    with pytest.raises(PredictionError, match="outside 0 to 255"):
        state.add(1, column(9, 9), PartMap(labels=column(9, 1 << 24), encoding="channels"))
    with pytest.raises(PredictionError, match="the truth is no panoptic-parts map"):
        state.add(1, column(9, 500), channels([[(0, 0, 0)]] * 2))
    state.add(1, column(9, 9), channels([[(0, 0, 0)]] * 2))
    with pytest.raises(PredictionError, match="evaluated twice"):
        state.merge(state)
    with pytest.raises(ValueError, match="different specifications"):
        state.merge(PartPanopticQuality(TINY, "correct"))


def test_samples_of_the_images() -> None:
    state = golden_state("cpp_default")
    sample = golden_state("cpp_default", [0, 2, 5])
    found = state.resampled([[1] * 6, [1, 0, 1, 0, 0, 1]])
    for row, result in enumerate((state.result(), sample.result())):
        for name, value in result.metrics().items():
            assert found[name][row] == pytest.approx(value, abs=1e-12)


def test_published_specifications() -> None:
    sizes = {}
    for name in PUBLISHED:
        spec = published_spec(name)
        with_parts = [item for item in spec.classes if item.parts]
        sizes[name] = (len(spec.classes), len(with_parts), sum(item.is_thing for item in spec.classes))
    assert sizes == {
        "cpp_default": (19, 5, 8),
        "cpp_grouped": (19, 5, 8),
        "ppp_57": (59, 15, 20),
        "ppp_107": (59, 15, 20),
    }
    assert published_spec("cpp_default").classes[11].parts == (
        (1, "torso"),
        (2, "head"),
        (3, "arm"),
        (4, "leg"),
    )
    with pytest.raises(LayoutError, match="cpp_default"):
        published_spec("cpp_9")
    with pytest.raises(LayoutError, match="not those of a panoptic-parts dataset"):
        spec_of("coco", [Category(category_id=1, name="cat", kind="object")])
