"""The index of a JSON file says the same as parsing the whole file, or that the file is damaged."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partseg.datasets.formats import json_index, json_scan
from partseg.datasets.formats.json_index import MISSING, JsonIndex, index_json
from partseg.errors import SourceError

TEXTS = st.text(st.sampled_from('ab"\\{}[],: \n/é😀id'), max_size=8)
KEYS = st.sampled_from(["id", "image_id", "i", "x"]) | TEXTS
NUMBERS = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = NUMBERS | TEXTS | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=4)
ROOTS = st.dictionaries(
    st.sampled_from(["images", "annotations"]) | TEXTS, st.lists(RECORDS, max_size=4) | VALUES, max_size=4
)


@pytest.fixture(params=[7, 64, 1 << 20], ids=lambda size: f"blocks of {size}")
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so short that everything lies across the border of two."""
    monkeypatch.setattr(json_scan, "_BLOCK", request.param)


def indexed(folder: Path, text: bytes) -> JsonIndex:
    path = folder / "file.json"
    path.write_bytes(text)
    json_index._index.cache_clear()
    scratch = folder / f"scratch-{len(list(folder.iterdir()))}"
    return index_json(path, scratch, {"images": ("id",), "annotations": ("id", "image_id")})


def written(value: Any, style: str) -> bytes:
    if style == "spread":
        return json.dumps(value, indent=3, separators=(" ,\t", "\r\n: "), ensure_ascii=True).encode()
    return orjson.dumps(value) if style == "tight" else json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.usefixtures("_block")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(root=ROOTS, style=st.sampled_from(["tight", "usual", "spread"]))
def test_it_says_what_a_parser_says(
    tmp_path_factory: pytest.TempPathFactory, root: dict[str, Any], style: str
) -> None:
    text = written(root, style)
    index = indexed(tmp_path_factory.mktemp("json"), text)
    expected = orjson.loads(text)
    assert list(index.keys) == list(expected)
    for key, value in expected.items():
        assert index.value(key) == value
        if isinstance(value, list) and all(isinstance(record, dict) for record in value):
            assert index.count(key) == len(value)
            backwards = range(len(value) - 1, -1, -1)
            assert [orjson.loads(raw) for raw in index.records(key, backwards)] == value[::-1]
            for field in ("id", "image_id"):
                numbers = [record.get(field) for record in value]
                whole = [n if type(n) is int and -(2**63) < n < 2**63 else MISSING for n in numbers]
                assert index.integers(key, field).tolist() == whole
        else:
            with pytest.raises(SourceError, match="is not a list"):
                index.count(key)


SMALL = {
    "info": {"note": 'a "quoted" \\ {brace] and, a comma', "n": [1, [2, {"id": 3}]]},
    "images": [{"id": 1, "file_name": "a\\b.jpg"}, {"id": 20, "file_name": "é.jpg"}],
    "annotations": [
        {"id": 5, "image_id": 20, "segmentation": {"counts": "a\\\\Z[", "image_id": 9}, "bbox": [1, 2.5]},
        {"image_id": 1, "id": -6},
    ],
    "empty": [],
    "version": 1.0,
}


@pytest.mark.usefixtures("_block")
def test_a_file_that_ends_too_early_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    text = json.dumps(SMALL).encode()
    assert indexed(tmp_path, text + b" \n").value("info") == SMALL["info"]
    for length in range(len(text)):
        with pytest.raises(SourceError, match=r"byte|not an object"):
            indexed(tmp_path, text[:length])


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_gives_the_other_value_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    text = bytearray(json.dumps(SMALL).encode())
    text[place % len(text)] = byte
    try:
        expected = orjson.loads(bytes(text))
    except orjson.JSONDecodeError:
        expected = None
    try:
        index = indexed(tmp_path_factory.mktemp("json"), bytes(text))
        found = {key: index.value(key) for key in index.keys}
        records = {key: index.parsed(key, range(index.count(key))) for key in ("images", "annotations")}
    except SourceError:
        return
    assert found == expected
    assert records == {key: expected[key] for key in records}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "damaged at byte 0"),
        (b"[1, 2]", "not an object"),
        (b'{"images": [{"id": 1} {"id": 2}]}', r"'images' is not a list of objects.*\(byte 21\)"),
        (b'{"images": [{"id": 1},, {"id": 2}]}', "'images' is not a list of objects"),
        (b'{"images": [, {"id": 1}]}', "'images' is not a list of objects"),
        (b'{"images": [{"id": 1}, 7]}', "'images' is not a list of objects"),
        (b'{"images": [[1], [2]]}', "'images' is not a list of objects"),
        (b'{"images": {"id": 1}}', "'images' is not a list"),
        (b'{"images": [{"id": 1}]]}', "damaged at byte 23"),
        (b'{"images": [{"id": 1}}}', "byte 11 is closed by another kind"),
        (b'{"images": [] "annotations": []}', "damaged at byte 14"),
        (b'{"images": []} {}', "damaged at byte 15"),
        (b'{"annotations": []}', "has no 'images'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        indexed(tmp_path, text).count("images")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    index = indexed(tmp_path, b'{"images": [{"id": 1}, {"id": 2, "x": 01}]}')
    with pytest.raises(SourceError, match=r"file.json, images\[1\] \(byte 23\): the JSON is damaged"):
        index.parsed("images", [0, 1])


def test_numbers_that_python_writes_are_read(tmp_path: Path) -> None:
    index = indexed(tmp_path, b'{"images": [{"id": 1, "x": NaN}, {"id": 2, "x": -Infinity}]}')
    first, second = index.parsed("images", [0, 1])
    assert np.isnan(first["x"])
    assert second["x"] == -np.inf


def test_annotations_are_grouped_by_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [{"id": 7}, {"id": 3}, {"id": 5}, {"id": 3}]
    refers = [3, 7, 99, 3, 7, 3, None]
    text = json.dumps({"images": images, "annotations": [{"id": 1, "image_id": to} for to in refers]})
    index = indexed(tmp_path, text.encode())
    order, starts = index.groups("annotations", "image_id", "images", "id")
    groups = [order[a:b].tolist() for a, b in pairwise(starts)]
    assert groups == [[1, 4], [0, 3, 5], [], [], [2, 6]]  # the last refers to no image
    assert index.repeated("images", "id").tolist() == [3]
    assert index.find("images", "id", np.array([5, 4, MISSING])).tolist() == [2, -1, -1]


def test_the_index_is_made_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(json.dumps(SMALL).encode())
    index_json(path, tmp_path / "scratch")
    json_index._index.cache_clear()  # as in another process
    with monkeypatch.context() as patch:
        patch.setattr(json_index, "scan_blocks", None)
        assert index_json(path, tmp_path / "scratch").count("images") == 2
    path.write_bytes(json.dumps({"images": [{}]}).encode())
    assert index_json(path, tmp_path / "scratch").count("images") == 1


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none.json: cannot be read \(No such file"):
        index_json(tmp_path / "none.json", tmp_path)
