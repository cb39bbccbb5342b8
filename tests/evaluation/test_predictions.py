from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.evaluation.predictions import (
    PredictionError,
    Predictions,
    concatenate,
    make,
    read_predictions,
    write_predictions,
)


def rows(n: int, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    return make(
        rng.integers(1, 4, n),
        rng.integers(1, 3, n),
        np.round(rng.random(n), 1),
        np.round(rng.random((n, 4)) * 3),
        [bytes([i % 7]) if i % 3 else None for i in range(n)],
    )


def as_tuples(p: Predictions) -> list[tuple[object, ...]]:
    return list(
        zip(p.image_ids.tolist(), p.category_ids, p.scores, map(tuple, p.boxes_xywh), p.rles, strict=True)
    )


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(n: int, random: object) -> None:
    table = rows(n)
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = table[np.array(order, dtype=np.int64)]
    assert as_tuples(shuffled.canonical()) == as_tuples(table.canonical())


@pytest.mark.parametrize("n", [0, 1, 25])
def test_a_file_gives_back_what_was_written_byte_for_byte(tmp_path: Path, n: int) -> None:
    table = rows(n)
    write_predictions(tmp_path / "a.parquet", table)
    write_predictions(tmp_path / "b.parquet", table[::-1])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert as_tuples(read_predictions(tmp_path / "a.parquet")) == as_tuples(table.canonical())
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_one_image_and_concatenation() -> None:
    table = concatenate([make(5, [1, 2], [0.5, 0.9], np.ones((2, 4))), make(6, [1], [0.1], np.ones((1, 4)))])
    assert table.of_image(5).scores.tolist() == [0.5, 0.9]
    assert len(table.of_image(7)) == 0
    assert len(concatenate([])) == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"category_ids": [1, 2], "scores": [0.1], "boxes_xywh": np.ones((2, 4))}, "different length"),
        ({"category_ids": [1], "scores": [np.nan], "boxes_xywh": np.ones((1, 4))}, "finite"),
    ],
)
def test_wrong_columns_are_refused(columns: dict[str, object], message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        make(1, **columns)  # type: ignore[arg-type]


def test_unreadable_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="no prediction file"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(PredictionError, match="not a readable"):
        read_predictions(tmp_path / "bad.parquet")
