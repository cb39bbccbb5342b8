from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.training.sampler import Pool, Steps, draw

POOLS = [
    Pool(groups=(np.arange(0, 30), np.arange(30, 40)), batch_size=2, ratio=4),
    Pool(groups=(np.arange(100, 105),), batch_size=4, ratio=2),
]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10**6))
def test_a_step_is_a_pure_function_of_seed_and_step(seed: int, step: int) -> None:
    first = draw(POOLS, seed=seed, step=step)
    assert first == draw(POOLS, seed=seed, step=step)
    assert first == next(iter(Steps(pools=POOLS, seed=seed, start=step, stop=step + 1)))
    assert len({key.source for key in first}) == 1
    chosen = POOLS[first[0].source]
    assert len(first) == chosen.batch_size
    rows = {key.row for key in first}
    assert any(rows <= set(group.tolist()) for group in chosen.groups)


def test_going_on_gives_the_same_steps() -> None:
    whole = list(Steps(pools=POOLS, seed=5, start=0, stop=20))
    later = Steps(pools=POOLS, seed=5, start=12, stop=20)
    assert list(later) == whole[12:]
    assert len(later) == 8


def test_shares_follow_ratios_and_group_sizes() -> None:
    batches = list(Steps(pools=POOLS, seed=1, start=0, stop=4000))
    images = Counter(key.source for batch in batches for key in batch)
    assert abs(images[0] / images.total() - 4 / 6) < 0.03
    wide = [batch[0].row < 30 for batch in batches if batch[0].source == 0]
    assert abs(np.mean(wide) - 0.75) < 0.03
