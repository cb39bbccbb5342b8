from __future__ import annotations

from partseg.store.gc import collect, drop_damaged, find_garbage
from partseg.store.store import blob_name


def test_what_a_ref_or_a_pin_names_stays_and_the_rest_goes(store, publish):
    kept, pinned = publish(store, "k1", a="1", b="shared"), publish(store, "k2", a="2")
    gone = publish(store, "k3", a="3", b="shared")
    store.set_ref("r", "s", "k1")
    store.pin("k2")
    garbage = find_garbage(store, grace=0)
    assert garbage.keys == ("k3",)
    assert store.lookup("k3") == gone  # looking removes nothing
    collect(store, garbage)
    assert store.lookup("k1") == kept
    assert store.lookup("k2") == pinned
    assert store.action("k3") is None
    assert sum(1 for _ in store.files.walk("blobs")) == 3
    assert find_garbage(store, grace=0).files == ()


def test_what_is_young_stays(store, publish):
    publish(store)
    garbage = find_garbage(store)
    assert (garbage.keys, garbage.files) == ((), ())


def test_laid_out_directories_of_removed_artifacts_go_too(local, publish):
    folder = local.materialise(publish(local).tree)
    collect(local, find_garbage(local, grace=0))
    assert not folder.exists()


def test_a_dropped_artifact_keeps_the_sound_blobs(store, publish):
    action = publish(store)
    first, second = store.tree(action.tree).entries
    store.files.remove(blob_name(first.sha256))
    store.files.write(blob_name(first.sha256), b"hellO")
    drop_damaged(store, action)
    assert store.action("k1") is None
    assert store.files.size(blob_name(first.sha256)) is None
    assert store.files.size(blob_name(second.sha256)) == 5
