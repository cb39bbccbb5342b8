from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.errors import MissingArtifact, StoreError
from partseg.store import Entry, Pin, Store, Tree, tree_of
from partseg.store.store import blob_name
from partseg.store.trees import parse_tree


def blob_of(store, action, index=0):
    return blob_name(store.tree(action.tree).entries[index].sha256)


def test_what_is_published_is_found_and_laid_out(store, publish):
    assert store.lookup("k1") is None
    action = publish(store)
    assert store.lookup("k1") == action
    folder = store.materialise(action.tree)
    assert {p.name: p.read_text() for p in folder.rglob("*") if p.is_file()} == {"a": "hello", "b": "world"}
    assert store.materialise(action.tree) == folder
    assert [a.key for a in store.actions()] == ["k1"]


def test_laid_out_files_are_read_only(store, publish):
    folder = store.materialise(publish(store).tree)
    assert not (folder / "deep" / "a").stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def test_a_local_artifact_takes_no_space_twice(local, publish):
    action = publish(local)
    laid_out = local.materialise(action.tree) / "deep" / "a"
    assert laid_out.samefile(local.files.local_path(blob_of(local, action)))


def test_the_digest_depends_on_names_and_content_only(store, publish):
    first, second = publish(store, "k1"), publish(store, "k2")
    assert first.tree == second.tree
    assert publish(store, "k3", a="hello", c="world").tree != first.tree


def test_a_missing_blob_is_a_miss_and_building_again_heals(store, publish, caplog):
    action = publish(store)
    store.files.remove(blob_of(store, action))
    assert store.lookup("k1") is None
    assert "deep/a: its blob" in caplog.text
    publish(store)
    assert store.lookup("k1") is not None


def test_a_truncated_blob_is_a_miss_and_building_again_heals(store, publish):
    action = publish(store)
    store.files.remove(blob_of(store, action))
    store.files.write(blob_of(store, action), b"he")
    assert store.lookup("k1") is None
    assert "has 2 bytes, not 5" in store.problems(action)[0]
    publish(store)
    assert store.lookup("k1") is not None


def test_a_changed_byte_in_a_local_blob_is_noticed_at_once(local, publish):
    action = publish(local)
    local.materialise(action.tree)
    path = local.files.local_path(blob_of(local, action))
    path.chmod(0o644)
    path.write_text("hellO")
    assert local.lookup("k1") is None
    with pytest.raises(MissingArtifact, match=r"deep/a: its blob .* is damaged"):
        local.materialise(action.tree)
    publish(local)
    assert local.lookup("k1") is not None
    assert (local.materialise(action.tree) / "deep" / "a").read_text() == "hello"


def test_rot_that_leaves_no_trace_is_found_by_a_deep_check(store, publish):
    action = publish(store)
    name = blob_of(store, action)
    store.files.remove(name)
    store.files.write(name, b"hellO")
    path = store.files.local_path(name)
    if path is not None:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert store.problems(action) == []
    assert "is damaged" in store.problems(action, deep=True)[0]


def test_a_damaged_file_of_a_remote_store_is_refused_removed_and_built_again(remote, publish, tmp_path):
    store, action = remote, publish(remote)
    store.files.write(blob_of(store, action), b"hellO")
    with pytest.raises(MissingArtifact, match=r"is damaged; it was removed: run again"):
        store.materialise(action.tree)
    assert [path.read_text() for path in (tmp_path / "cache/blobs").rglob("*") if path.is_file()] == ["world"]
    assert store.lookup("k1") is None
    publish(store)
    assert (store.materialise(action.tree) / "deep" / "a").read_text() == "hello"


def test_a_damaged_list_of_files_or_record_is_a_miss(store, publish):
    action = publish(store)
    store.files.write(f"trees/{action.tree}.json", b"[]")
    assert store.lookup("k1") is None
    publish(store)
    store.files.write("actions/k1.json", b'{"key": "k1"')
    assert store.lookup("k1") is None


def test_a_laid_out_directory_that_was_tampered_with_is_laid_out_again(local, publish):
    action = publish(local)
    folder = local.materialise(action.tree)
    (folder / "deep" / "a").unlink()
    assert (local.materialise(action.tree) / "deep" / "a").read_text() == "hello"


def test_links_do_not_belong_into_an_artifact(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="plain files only"):
        store.publish("k", out, parts={}, facts={})


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
def test_a_tree_cannot_write_outside_its_directory(path):
    tree = Tree(entries=(Entry(path=path, size=1, sha256="0" * 64),))
    with pytest.raises(StoreError, match="leaves the artifact"):
        parse_tree(tree.data, tree.digest)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.binary(max_size=9), max_size=4))
def test_a_tree_read_back_is_the_same(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("tree")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    tree = tree_of(folder)
    assert parse_tree(tree.data, tree.digest) == tree
    assert [entry.path for entry in tree.entries] == sorted(files)


def test_refs_pins_and_prefixes(store, publish):
    publish(store, "abc")
    publish(store, "abd")
    store.set_ref("r", "s", "abc")
    store.pin("best", "abd", since="2026")
    assert (store.ref("r", "s"), store.ref("r", "t")) == ("abc", None)
    assert store.refs() == {("r", "s"): "abc"}
    assert store.pins() == {"best": Pin(name="best", key="abd", since="2026")}
    store.pin("best", "abd")
    with pytest.raises(StoreError, match="the pin best is on abd already; unpin it first"):
        store.pin("best", "abc")
    store.unpin("best")
    assert store.pins() == {}
    with pytest.raises(StoreError, match="there is no pin best"):
        store.unpin("best")
    store.files.write("pins/abc.json", b"{}")  # as older versions wrote them
    assert store.pins()["abc"].key == "abc"
    store.files.write("pins/abc.json", b"{")
    with pytest.raises(StoreError, match="the pin abc is damaged"):
        store.pins()
    assert store.find("abd").key == "abd"
    with pytest.raises(MissingArtifact, match="2 artifacts"):
        store.find("ab")


def test_an_unwritable_store_says_what_to_do(tmp_path, publish):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store", cache=tmp_path / "cache")
    assert store.lookup("k1") is None
    with pytest.raises(StoreError, match=r"cannot be written: Not a directory; .*--store or PARTSEG_STORE"):
        publish(store)


def test_an_unknown_kind_of_url_is_one_error(tmp_path):
    with pytest.raises(StoreError, match="no file system for this store"):
        Store("nothing://x", cache=tmp_path)
