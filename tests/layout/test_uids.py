import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.layout.uids import pack_uids, unpack_uids

GOLDEN = Path(__file__).parents[2].parent / "shared/golden/partpq/a/encode_decode.json"

sids = st.integers(1, 99)
parts = st.one_of(
    st.tuples(st.integers(0, 99), st.just(-1), st.just(-1)),
    st.tuples(sids, st.integers(0, 999), st.just(-1)),
    st.tuples(sids, st.integers(0, 999), st.integers(0, 99)),
)


@given(st.lists(parts, max_size=50))
def test_what_is_packed_comes_out_again(ids: list[tuple[int, int, int]]) -> None:
    sid, iid, pid = np.array(ids, np.int64).reshape(-1, 3).T
    found = unpack_uids(pack_uids(sid, iid, pid))
    assert (found.sids == sid).all()
    assert (found.iids == iid).all()
    assert (found.pids == pid).all()


@given(
    st.one_of(st.integers(0, 99), st.integers(1000, 99_999), st.integers(100_000, 9_999_999)),
)
def test_every_valid_uid_is_the_uid_of_its_pieces(uid: int) -> None:
    found = unpack_uids([[uid]])
    assert pack_uids(found.sids, found.iids, found.pids).tolist() == [[uid]]
    assert str(uid).startswith(str(found.sids.item()))


@pytest.mark.parametrize("uid", [-1, 100, 999, 10_000_000])
def test_numbers_that_are_no_uids_are_refused(uid: int) -> None:
    with pytest.raises(ValueError, match=str(uid)):
        unpack_uids([1, uid])


@pytest.mark.parametrize("ids", [(100, -1, -1), (1, 1000, -1), (1, 0, 100), (1, -1, 3), (0, 1, -1)])
def test_ids_without_a_uid_are_refused(ids: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"outside|belongs to|unlabelled"):
        pack_uids(*ids)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="golden files are not here")
@pytest.mark.parametrize(("key", "missing"), [("default", -1), ("noinfo0", 0)])
def test_equal_to_panoptic_parts(key: str, missing: int) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = unpack_uids(golden["uids"], missing)
    fields = (found.sids, found.iids, found.pids, found.sids_iids, found.sids_pids)
    assert [field.tolist() for field in fields] == golden[key]
    assert unpack_uids(golden["uids"]).sids.size
    again = unpack_uids(golden["uids"])
    assert pack_uids(again.sids, again.iids, again.pids).tolist() == golden["reencoded"]
