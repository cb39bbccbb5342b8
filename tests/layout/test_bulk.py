from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from partseg.layout import decode_counts, encode_counts, mask_to_rle, rle_bbox
from partseg.layout.bulk import Masks, areas_inside, boxes, decode_masks, union_areas

MASKS = st.lists(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), max_size=6)
SAME_SIZE = st.integers(1, 6).flatmap(lambda count: arrays.arrays(np.bool_, (count, 7, 8)))


def decode(rles: list[bytes]) -> Masks:
    offsets = np.append(0, np.cumsum([len(rle) for rle in rles])).astype(np.int64)
    return decode_masks(np.frombuffer(b"".join(rles), np.uint8), offsets)


@given(MASKS)
def test_many_masks_are_decoded_as_one_by_one(masks: list[np.ndarray]) -> None:
    rles = [mask_to_rle(mask) for mask in masks]
    many = decode(rles)
    assert many.readable.all()
    assert many.pixels.tolist() == [mask.size for mask in masks]
    assert many.areas.tolist() == [mask.sum() for mask in masks]
    found = boxes(many, np.array([len(mask) for mask in masks], np.int64))
    expected = [rle_bbox(rle, len(mask)) for rle, mask in zip(rles, masks, strict=True)]
    assert [tuple(box) for box in found.tolist()] == expected


@given(SAME_SIZE, st.data())
def test_overlaps_and_unions_are_those_of_the_pixels(masks: np.ndarray, data: st.DataObject) -> None:
    many = decode([mask_to_rle(mask) for mask in masks])
    choice = st.integers(-1, len(masks) - 1)
    other = np.array(data.draw(st.lists(choice, min_size=len(masks), max_size=len(masks))), np.int64)
    inside = [(mask & masks[at]).sum() if at >= 0 else 0 for mask, at in zip(masks, other, strict=True)]
    assert areas_inside(many, other).tolist() == inside
    unions = [masks[other == owner].any(axis=0).sum() for owner in range(len(masks))]
    assert union_areas(many, other).tolist() == unions


@given(st.lists(st.binary(max_size=12), max_size=5))
def test_any_bytes_are_read_or_refused_without_harm_to_their_neighbours(items: list[bytes]) -> None:
    good = mask_to_rle(np.eye(5, dtype=np.bool_))
    many = decode([good, *items, good])
    assert many.areas[[0, -1]].tolist() == [5, 5]
    for item, readable, pixels in zip(items, many.readable[1:-1], many.pixels[1:-1], strict=True):
        try:
            counts = decode_counts(item)
        except ValueError:
            assert not readable
            continue
        if readable:
            assert pixels == counts.sum()
        else:
            assert (counts < 0).any() or len(item) > 8


@given(st.lists(st.lists(st.integers(0, 1 << 39), min_size=1, max_size=9), min_size=1, max_size=4))
def test_long_runs_are_kept(counts: list[list[int]]) -> None:
    many = decode([encode_counts(item) for item in counts])
    if many.readable.all():
        assert many.pixels.tolist() == [sum(item) for item in counts]
    assert all(readable or max(item) >= 1 << 38 for item, readable in zip(counts, many.readable, strict=True))
