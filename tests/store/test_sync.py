from __future__ import annotations

import pytest

from partseg.errors import MissingArtifact
from partseg.store import Store
from partseg.store.store import blob_name
from partseg.store.sync import copy_artifacts, plan_transfer, transfer


def test_artifacts_go_from_store_to_store(store, other, publish):
    action = publish(store)
    plan = plan_transfer(store, other, ["k1"])
    assert (plan.size, len(plan.blobs)) == (10, 2)
    assert other.action("k1") is None  # a plan copies nothing
    transfer(store, other, plan)
    assert other.lookup("k1") == action
    assert (other.materialise(action.tree) / "deep" / "b").read_text() == "world"
    again = copy_artifacts(store, other, ["k1"])
    assert (again.size, again.moves, again.there) == (0, (), (action,))
    entry = store.tree(action.tree).entries[0]
    store.files.remove(blob_name(entry.sha256))
    assert other.lookup("k1") == action
    with pytest.raises(MissingArtifact, match=r"no whole artifact under k1: deep/a: its blob .* is missing"):
        copy_artifacts(store, Store("memory://none", cache=store.cache), ["k1"])
    with pytest.raises(MissingArtifact, match="no whole artifact under zz: there is no record"):
        copy_artifacts(store, other, ["zz"])


def test_two_local_stores_share_no_file(local, tmp_path, publish):
    action = publish(local)
    target = Store(tmp_path / "target", cache=tmp_path / "target-cache")
    copy_artifacts(local, target, ["k1"])
    name = blob_name(local.tree(action.tree).entries[0].sha256)
    assert not local.files.local_path(name).samefile(target.files.local_path(name))


def test_what_several_artifacts_share_is_copied_once(store, other, publish):
    publish(store, "k1", a="one", b="both")
    publish(store, "k2", a="both", b="two")
    assert copy_artifacts(store, other, ["k1", "k2"]).size == len("onebothtwo")
    assert {action.key for action in other.actions()} == {"k1", "k2"}


def test_a_copy_that_was_stopped_goes_on_with_what_is_missing(local, remote, publish, monkeypatch):
    publish(local, "k1", a="1" * 100)
    publish(local, "k2", a="2" * 100)
    put = remote.files.put

    def stop_at_the_second(name, source):
        if len(list(remote.files.walk("blobs"))):
            raise KeyboardInterrupt
        put(name, source)

    monkeypatch.setattr(remote.files, "put", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        copy_artifacts(local, remote, ["k1", "k2"])
    monkeypatch.setattr(remote.files, "put", put)
    assert (remote.lookup("k1") is None, remote.action("k2")) == (False, None)
    plan = copy_artifacts(local, remote, ["k1", "k2"])
    assert (plan.size, [action.key for action, _ in plan.moves]) == (100, ["k2"])
    assert remote.lookup("k2") is not None


def test_a_damaged_file_is_not_copied(store, other, publish):
    action = publish(store)
    name = blob_name(store.tree(action.tree).entries[0].sha256)
    store.files.remove(name)
    store.files.write(name, b"hellO")
    with pytest.raises(MissingArtifact, match="is damaged"):
        copy_artifacts(store, other, ["k1"])
    assert other.action("k1") is None
    assert b"hellO" not in {other.files.read(found.name) for found in other.files.walk("blobs")}


def test_a_damaged_file_of_the_target_is_replaced(store, local, publish, tmp_path):
    action = publish(store)
    target = Store(tmp_path / "target", cache=tmp_path / "target-cache")
    copy_artifacts(store, target, ["k1"])
    path = target.files.local_path(blob_name(target.tree(action.tree).entries[0].sha256))
    path.chmod(0o644)
    path.write_bytes(b"hellO")
    copy_artifacts(store, target, ["k1"])
    assert (target.materialise(action.tree) / "deep" / "a").read_text() == "hello"
