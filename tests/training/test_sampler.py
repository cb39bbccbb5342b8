from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.errors import TrainingError
from partseg.training.epochs import Epochs
from partseg.training.pools import Pool
from partseg.training.repeat import images_per_class, repeat_factors
from partseg.training.sampler import SampleKey, Steps

TWO = [
    Pool(groups=(np.arange(0, 30), np.arange(30, 40)), batch_size=2, ratio=4),
    Pool(groups=(np.arange(100, 105),), batch_size=4, ratio=2),
]
ONE = Pool(groups=(np.arange(0, 7), np.arange(20, 25)), batch_size=2, ratio=1)
RARE = Pool(
    groups=(np.arange(0, 7), np.arange(20, 25)),
    batch_size=2,
    ratio=1,
    factors=(np.array([1, 1, 1, 1.5, 2.25, 1, 3]), np.array([1, 1, 1.25, 1, 1.0])),
)


def steps(pools: list[Pool] | None = None, **options: Any) -> Steps:
    return Steps(pools or TWO, **{"order": "weighted", "seed": 5, "start": 0, "stop": 20, **options})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**70), st.integers(0, 10**6), st.integers(0, 15))
def test_a_batch_is_a_pure_function_of_seed_iteration_and_number(seed: int, iteration: int, m: int) -> None:
    first = steps(seed=seed, batches=16).batch(iteration, m)
    one = steps(seed=seed, batches=16, rank=m, world=16, start=iteration, stop=iteration + 1)
    assert list(one) == [first]
    assert len({key.source for key in first}) == 1
    chosen = TWO[first[0].source]
    assert len(first) == chosen.batch_size
    rows = {key.row for key in first}
    assert any(rows <= set(group.tolist()) for group in chosen.groups)


@pytest.mark.parametrize(("order", "pools"), [("weighted", TWO), ("epochs", [ONE]), ("epochs", [RARE])])
def test_processes_share_the_batches_of_one(order: str, pools: list[Pool]) -> None:
    whole = list(steps(pools, order=order, batches=4))
    assert len(steps(pools, order=order, batches=4)) == len(whole) == 80
    shares = [list(steps(pools, order=order, batches=4, rank=rank, world=2)) for rank in (0, 1)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole
    later = steps(pools, order=order, batches=4, start=13)
    assert list(later) == whole[4 * 13 :]
    assert len(later) == 28


def test_all_batches_differ() -> None:
    seeds = [key.seed for batch in steps(batches=4, stop=100) for key in batch]
    assert len(set(seeds)) == len(seeds)


def test_what_cannot_be_shared_or_ordered_is_refused() -> None:
    with pytest.raises(TrainingError, match="8 batches per iteration cannot be shared by 3 processes"):
        steps(batches=8, world=3)
    with pytest.raises(TrainingError, match="exactly one dataset, not 2"):
        steps(order="epochs")
    small = Pool(groups=(np.arange(3), np.arange(3, 6)), batch_size=4, ratio=1)
    with pytest.raises(TrainingError, match="not enough images of one orientation for a batch of 4"):
        steps([small], order="epochs")


def share_error(count: int, share: float) -> float:
    """Four standard deviations of the share among independent draws."""
    return 4 * math.sqrt(share * (1 - share) / count)


# Datasets of the published row r50_lvis_paco_pascalpart_ins11_ins11parsed: ratios and batches per GPU.
PUBLISHED = {"ratio": (4, 2, 1, 2, 2), "batch_size": (2, 2, 2, 8, 4)}


def test_shares_are_the_published_ones() -> None:
    sizes = (10_000, 4_500, 1_000, 3_000, 3_000)
    pools = [
        Pool(groups=(np.arange(size // 3), np.arange(size // 3, size)), batch_size=batch, ratio=ratio)
        for size, ratio, batch in zip(sizes, *PUBLISHED.values(), strict=True)
    ]
    batches = list(steps(pools, seed=1, stop=8_000))
    images = Counter(key.source for batch in batches for key in batch)
    # MultiDatasetSampler weighs an image max(sizes) / size * ratio / sum(ratios), alike within a dataset, and
    # a batch leaves when a bucket has batch_size images.
    weights = np.array(
        [
            max(sizes) / s * r / sum(PUBLISHED["ratio"]) * s
            for s, r in zip(sizes, PUBLISHED["ratio"], strict=True)
        ]
    )
    of_images = weights / weights.sum()
    of_batches = of_images / PUBLISHED["batch_size"] / (of_images / PUBLISHED["batch_size"]).sum()
    found = Counter(batch[0].source for batch in batches)
    for source, share in enumerate(of_batches):
        assert abs(found[source] / len(batches) - share) < share_error(len(batches), share)
        batch = PUBLISHED["batch_size"][source]
        near = batch / images.total() * len(batches) * share_error(len(batches), share)
        assert abs(images[source] / images.total() - of_images[source]) < 2 * near
        wide = [batch[0].row < sizes[source] // 3 for batch in batches if batch[0].source == source]
        assert abs(np.mean(wide) - 1 / 3) < share_error(len(wide), 1 / 3) + 1e-3


def test_rare_images_are_drawn_by_their_factors() -> None:
    rows = Counter(key.row for batch in steps([RARE], stop=8_000) for key in batch)
    factors = dict(zip(np.concatenate(RARE.groups).tolist(), np.concatenate(RARE.factors or ()), strict=True))
    for row, factor in factors.items():
        share = factor / sum(factors.values())
        # Two images of a batch share their group: the deviation is at most the square root of two as large.
        assert abs(rows[row] / rows.total() - share) < 1.5 * share_error(rows.total(), share)


def test_an_epoch_has_every_image_once_but_for_the_last_of_a_group() -> None:
    epochs = Epochs(ONE, seed=3)
    seen = []
    for epoch in range(40):
        batches = epochs.order(epoch)
        assert len(batches) == epochs.size(epoch) == 3 + 2
        rows = np.concatenate(batches).tolist()
        assert len(set(rows)) == len(rows) == 10
        assert all(len({row < 20 for row in batch.tolist()}) == 1 for batch in batches)
        seen.append(tuple(rows))
    assert len(set(seen)) == 40
    left_out = Counter(row for rows in seen for row in set(range(7)) - set(rows))
    assert len(left_out) == 7  # nobody is always the one


def test_repeated_images_come_as_often_as_their_factor_says() -> None:
    epochs, count = Epochs(replace(RARE, batch_size=1), seed=3), 3000
    times = Counter(int(batch[0]) for epoch in range(count) for batch in epochs.order(epoch))
    for rows, factors in zip(RARE.groups, RARE.factors or (), strict=True):
        for row, factor in zip(rows.tolist(), factors.tolist(), strict=True):
            part = factor % 1
            assert abs(times[row] / count - factor) <= share_error(count, part)
    epochs = Epochs(RARE, seed=3)
    assert len({epochs.size(epoch) for epoch in range(50)}) > 1
    assert all(len(epochs.order(epoch)) == epochs.size(epoch) for epoch in range(50))


@pytest.mark.parametrize("pool", [ONE, RARE])
def test_the_epoch_of_a_batch_is_found_without_its_forerunners(pool: Pool) -> None:
    walked = [
        batch.tolist()
        for epochs in [Epochs(pool, seed=8)]
        for epoch in range(6)
        for batch in epochs.order(epoch)
    ]
    for number in (0, 4, 5, 17, 29):
        assert Epochs(pool, seed=8).batch(number).tolist() == walked[number]
    begins = [Epochs(pool, seed=8).find(number) for number in range(30)]
    assert all(0 <= e1 - e0 <= 1 and (e0 == e1) == (b0 == b1) for (e0, b0), (e1, b1) in pairwise(begins))


def test_batches_leave_in_the_order_in_which_they_fill() -> None:
    # Six images, wide ones 0 1 2, others 10 11 12, batches of two. Along the permutation, which batches of
    # one show, each joins the open batch of its group; the third of each group is left over.
    pool = Pool(groups=(np.array([0, 1, 2]), np.array([10, 11, 12])), batch_size=2, ratio=1)
    for seed in range(20):
        epochs = Epochs(pool, seed)
        line = np.concatenate(Epochs(replace(pool, batch_size=1), seed).order(0)).tolist()
        open_: dict[bool, list[int]] = {True: [], False: []}
        expected = []
        for row in line:
            bucket = open_[row < 10]
            bucket.append(row)
            if len(bucket) == 2:
                expected.append(bucket[:])
                bucket.clear()
        assert [batch.tolist() for batch in epochs.order(0)] == expected


def test_the_same_seed_gives_the_same_batches_for_good() -> None:
    # What a training of an older version drew must not change under its checkpoints.
    assert steps(stop=1).batch(7, 2)[0] == SampleKey(source=0, row=11, seed=8173690273734957818)
    assert [key.row for key in steps([RARE], order="epochs").batch(9, 0)] == [1, 4]


def test_repeat_factors_worked_by_hand() -> None:
    # Four images; class 0 in all of them, class 1 in one, class 2 in none. Threshold 1/2:
    # r(0) = max(1, sqrt(.5 / 1)) = 1, r(1) = sqrt(.5 / .25) = 1.414.
    rows, labels = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(repeat_factors(rows, labels, 4, 0.5), [1, 1, 1, math.sqrt(2)])
    np.testing.assert_array_equal(repeat_factors(rows, labels, 4, 0.0), 1)
    # Two more images without annotations make every share smaller.
    np.testing.assert_allclose(repeat_factors(rows, labels, 6, 0.5), [1, 1, 1, math.sqrt(3), 1, 1])
    np.testing.assert_array_equal(images_per_class(rows, labels, 3), [4, 1, 0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=12),
    st.sampled_from([0.001, 0.1, 0.3, 0.9]),
)
def test_repeat_factors_follow_the_formula(classes: list[list[int]], threshold: float) -> None:
    share = {c: sum(c in image for image in classes) / len(classes) for c in range(7)}
    expected = [
        max((max(1.0, math.sqrt(threshold / share[c])) for c in image), default=1.0) for image in classes
    ]
    rows = np.array([row for row, image in enumerate(classes) for _ in image], dtype=np.int64)
    labels = np.array([c for image in classes for c in image], dtype=np.int64)
    np.testing.assert_allclose(repeat_factors(rows, labels, len(classes), threshold), expected)
