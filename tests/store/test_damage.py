"""Bytes that change or get lost, wherever they lie: noticed, and nothing wrong is handed out."""

from __future__ import annotations

import os
import shutil

import pytest

from partseg.errors import MissingArtifact, StoreError
from partseg.store import Store, tree_of
from partseg.store.blobs import STAMP
from partseg.store.store import blob_name


def flip(path, position=0, *, leave_a_trace=True):
    """Change one byte of a file; disks do it without touching the file's times."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    if not leave_a_trace:
        path.chmod(0o444)
        os.utime(path, (STAMP, STAMP))


def test_rot_without_a_trace_is_not_handed_out(local, publish):
    action = publish(local)
    folder = local.materialise(action.tree)
    flip(local.files.local_path(blob_name(local.tree(action.tree).entries[0].sha256)), leave_a_trace=False)
    assert local.lookup("k1") == action  # nobody read it
    with pytest.raises(MissingArtifact, match=r"deep/a: its blob .* is damaged; it was removed: run again"):
        local.materialise(action.tree)
    assert local.lookup("k1") is None
    publish(local)
    assert (local.materialise(action.tree) / "deep" / "a").read_text() == "hello"
    assert folder == local.layout(action.tree)


@pytest.mark.parametrize("leave_a_trace", [True, False])
def test_rot_in_the_cache_of_a_remote_store_is_fetched_again(remote, publish, leave_a_trace):
    action = publish(remote)
    flip(remote.materialise(action.tree) / "deep" / "a", leave_a_trace=leave_a_trace)
    assert (remote.materialise(action.tree) / "deep" / "a").read_text() == "hello"
    assert remote.lookup("k1") == action


def test_a_laid_out_copy_is_checked_as_well(local, publish):
    action = publish(local)
    path = local.materialise(action.tree) / "deep" / "a"
    shutil.copy(path, path.with_name("copy"))  # as where a file system has no links
    path.with_name("copy").replace(path)
    flip(path, leave_a_trace=False)
    assert (local.materialise(action.tree) / "deep" / "a").read_text() == "hello"
    assert local.lookup("k1") == action


class TestADownloadThatGoesWrong:
    @pytest.fixture
    def spoil(self, remote, monkeypatch):
        def spoil(*answers):
            get, left = remote.files.get, list(answers)

            def spoiled(name, target):
                get(name, target)
                if left:
                    target.write_bytes(left.pop(0))

            monkeypatch.setattr(remote.files, "get", spoiled)

        return spoil

    def test_once_is_repeated(self, remote, publish, spoil):
        action = publish(remote, a="hello")
        spoil(b"hellO")
        assert (remote.materialise(action.tree) / "deep" / "a").read_text() == "hello"

    def test_in_two_ways_is_the_network(self, remote, publish, spoil):
        action = publish(remote, a="hello")
        spoil(b"hellO", b"Hello")
        with pytest.raises(StoreError, match=r"two downloads of its blob .* differ"):
            remote.materialise(action.tree)
        assert remote.lookup("k1") == action

    def test_in_the_same_way_is_the_store(self, remote, publish, spoil):
        action = publish(remote, a="hello")
        spoil(b"hellO", b"hellO")
        with pytest.raises(MissingArtifact, match="is damaged"):
            remote.materialise(action.tree)
        assert remote.lookup("k1") is None


def test_a_record_is_whole_or_none(local, publish):
    action = publish(local)
    path = local.files.local_path("actions/k1.json")
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        flip(path, position)
        assert local.action("k1") is None, whole[position : position + 10]
        path.write_bytes(whole)
    assert local.action("k1") == action
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        assert local.action("k1") is None


def test_a_record_under_another_key_is_none(store, publish):
    publish(store)
    store.files.write("actions/k2.json", store.files.read("actions/k1.json"))
    assert store.action("k2") is None


def test_a_record_from_before_there_were_checksums_is_read(store):
    store.files.write("actions/k1.json", b'{"key":"k1","tree":"00","parts":{},"facts":{},"format":1}')
    assert store.action("k1").tree == "00"


@pytest.mark.parametrize("moment", range(4))
def test_whoever_is_killed_while_publishing_leaves_no_artifact(store, publish, monkeypatch, moment):
    left = moment

    def failing(function):
        def call(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("put", "write"):
            patch.setattr(store.files, name, failing(getattr(store.files, name)))
        with pytest.raises(KeyboardInterrupt):
            publish(store)  # two blobs, their list, the record
    assert store.lookup("k1") is None
    assert list(store.actions()) == []
    assert store.lookup(publish(store).key) is not None


def test_many_writers_of_one_key_leave_one_whole_artifact(store, tmp_path):
    """Two machines may build the same key when the lease of one went stale."""
    from concurrent.futures import ThreadPoolExecutor

    def write(number):
        out = tmp_path / f"writer-{number}"
        out.mkdir()
        for name in "abc":
            (out / name).write_text(f"{name}{number}")
        (out / "shared").write_text("shared")
        digest = tree_of(out).digest
        store.publish("k1", out, parts={}, facts={"writer": number})
        return digest

    def read(_):
        found = store.lookup("k1")
        if found is not None:
            folder = store.materialise(found.tree)
            writer = found.facts["writer"]
            assert [(folder / name).read_text() for name in "abc"] == [f"{name}{writer}" for name in "abc"]

    with ThreadPoolExecutor(8) as pool:
        written, read_ = pool.map(write, range(4)), pool.map(read, range(8))
        digests = list(written)
        list(read_)
    assert store.lookup("k1").tree in digests


def test_a_bucket_that_is_not_there_is_one_error(s3, tmp_path, publish):
    store = Store("s3://nobodys-bucket/store", cache=tmp_path / "cache")
    assert store.lookup("k1") is None
    assert store.keys() == []
    with pytest.raises(StoreError, match=r"cannot be written: .*; make the bucket, or choose another store"):
        publish(store)
