from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from partseg.datasets.formats.inflate import inflate
from partseg.datasets.formats.matlab import load_variable
from tests.datasets.conftest import SHARED

SAMPLES = SHARED / "samples" / "pascal_part" / "Annotations_Part"

NUMBERS = st.sampled_from(["u1", "i1", "<u2", "<i4", "<i8", "<u8", "<f4", "<f8", "?"]).flatmap(
    lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5))
)
TEXTS = st.text(st.characters(codec="ascii", min_codepoint=32), max_size=12) | st.lists(
    st.text(st.sampled_from("a é€"), max_size=4), min_size=1, max_size=3
).map(np.array)
NAMES = st.text(st.sampled_from("abcxyz_"), min_size=1, max_size=9).filter(lambda name: name[0] != "_")


def structs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Struct arrays of any shape with the same fields everywhere."""

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=2))
        array = np.empty(shape, dtype=[(name, object) for name in names])
        for index in np.ndindex(*shape):
            for name in names:
                array[index][name] = draw(values)
        return array

    return build()


TREES = st.recursive(NUMBERS | TEXTS, structs, max_leaves=12)


def mat(content: Any, *, compressed: bool = True) -> bytes:
    buffer: Any = io.BytesIO()
    savemat(buffer, content, do_compression=compressed)
    return bytes(buffer.getvalue())


def scipys(content: bytes, name: str) -> Any:
    buffer: Any = io.BytesIO(content)
    return loadmat(buffer)[name]


def assert_same(ours: Any, theirs: Any) -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if theirs.dtype.names:
        for name in theirs.dtype.names:
            for a, b in zip(ours[name].ravel(), theirs[name].ravel(), strict=True):
                assert_same(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None, max_examples=150)
@given(TREES, st.booleans())
def test_any_variable_is_as_scipy_reads_it(tree: Any, compressed: bool) -> None:
    content = mat({"other": 1.0, "wanted": tree}, compressed=compressed)
    assert_same(load_variable(content, "wanted"), scipys(content, "wanted"))


@pytest.fixture
def no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("left to scipy")

    monkeypatch.setattr("scipy.io.loadmat", refuse)


@pytest.mark.usefixtures("no_scipy")
@pytest.mark.parametrize("compressed", [False, True])
def test_annotations_are_not_left_to_scipy(compressed: bool) -> None:
    parts = np.empty((1, 2), dtype=[("part_name", object), ("mask", object)])
    for index, name in enumerate(("head", "tail")):
        parts[0, index] = (name, np.full((3, 5), index, np.uint8))
    array = load_variable(mat({"parts": parts}, compressed=compressed), "parts")
    assert [str(item["part_name"][0]) for item in array.ravel()] == ["head", "tail"]
    assert array[0, 1]["mask"].tolist() == [[1] * 5] * 3
    assert array[0, 1]["mask"].flags.f_contiguous


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real files lie beside the repository")
def test_real_files_are_read_here_and_as_scipy_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [path.read_bytes() for path in sorted(SAMPLES.glob("*.mat"))]
    expected = [scipys(content, "anno") for content in contents]
    monkeypatch.setattr("scipy.io.loadmat", None)
    for content, theirs in zip(contents, expected, strict=True):
        assert_same(load_variable(content, "anno"), theirs)


def flushed(data: bytes, block: int, flush: int) -> bytes:
    """A zlib stream, flushed after every block but the last."""
    packer = zlib.compressobj(6)
    whole = (len(data) - 1) // block * block
    pieces = [packer.compress(data[at : at + block]) + packer.flush(flush) for at in range(0, whole, block)]
    return b"".join([*pieces, packer.compress(data[max(whole, 0) :]), packer.flush()])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([b"\0", b"\1", b"\0\0\xff\xff", b"ab"]), max_size=12),
    st.binary(max_size=40),
    st.sampled_from([8192, 4096, 5000]),
    st.sampled_from([zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH]),
)
def test_streams_flushed_in_blocks_are_inflated(
    kinds: list[bytes], rest: bytes, block: int, flush: int
) -> None:
    data = b"".join(kind * (8192 // len(kind)) for kind in kinds) + rest
    assert inflate(flushed(data, block, flush)).tobytes() == data


def test_equal_blocks_are_inflated_once_and_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (b"\0" * 8192) * 20 + bytes(range(256)) * 32 + b"\0" * 100
    packed = flushed(data, 8192, zlib.Z_FULL_FLUSH)
    wrong = packed[:-1] + bytes([packed[-1] ^ 1])
    with pytest.raises(Exception, match="checksum"):
        inflate(wrong)
    monkeypatch.setattr("partseg.datasets.formats.inflate.isal_zlib.decompress", None)
    assert inflate(packed).tobytes() == data


@settings(deadline=None, max_examples=300)
@given(TREES, st.booleans(), st.data())
def test_damage_is_an_error_or_harmless(tree: Any, compressed: bool, data: st.DataObject) -> None:
    content = bytearray(mat({"anno": tree}, compressed=compressed))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(128, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        load_variable(bytes(content), "anno")
    except Exception as error:  # what it means, pascal_part says in its own words
        assert not isinstance(error, MemoryError | RecursionError)  # noqa: PT017


@pytest.mark.usefixtures("no_scipy")
def test_sizes_that_lie_are_not_believed() -> None:
    content = bytearray(mat({"anno": np.zeros((5, 8), np.uint8)}, compressed=False))
    start = content.index(struct.pack("<II", 2, 40))
    content[start + 4 : start + 8] = struct.pack("<I", 1 << 30)
    with pytest.raises(ValueError, match="not a sound MAT file"):
        load_variable(bytes(content), "anno")


@pytest.mark.usefixtures("no_scipy")
def test_what_annotations_do_not_hold_is_refused() -> None:
    with pytest.raises(KeyError, match="anno"):
        load_variable(mat({"other": 1.0}), "anno")
    for value in (np.array([[1j]]), np.array([[1, "a"]], object)):
        with pytest.raises(ValueError, match="not a sound MAT file"):
            load_variable(mat({"anno": value}), "anno")


def test_other_versions_are_left_to_scipy() -> None:
    buffer: Any = io.BytesIO()
    savemat(buffer, {"anno": np.arange(6.0).reshape(2, 3)}, format="4")
    assert load_variable(buffer.getvalue(), "anno").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_text_file_is_no_mat_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_variable(b"hello " * 100, "anno")
