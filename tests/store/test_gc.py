from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from partseg.cli.store import app
from partseg.errors import StoreError
from partseg.store import Store
from partseg.store.gc import collect, drop_damaged, find_garbage
from partseg.store.store import blob_name


def test_what_a_ref_or_a_pin_names_stays_and_the_rest_goes(store, publish):
    kept, pinned = publish(store, "k1", a="1", b="shared"), publish(store, "k2", a="2")
    gone = publish(store, "k3", a="3", b="shared")
    store.set_ref("r", "s", "k1")
    store.pin("mine", "k2")
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


def test_what_is_needed_was_made_from_what_is_needed_too(store, publish):
    raw = publish(store, "k-raw", stage="raw", a="raw")
    data = publish(store, "k-data", stage="data", made_from=[raw], a="data")
    publish(store, "k-model", stage="model", made_from=[data], a="model")
    publish(store, "k-other", stage="other", made_from=[raw], a="other")
    assert set(find_garbage(store, grace=0).keys) == {"k-raw", "k-data", "k-model", "k-other"}
    store.pin("best", "k-model")
    garbage = find_garbage(store, grace=0)
    assert garbage.keys == ("k-other",)
    assert garbage.sizes["k-other"] >= len("other")
    collect(store, garbage)
    assert set(store.keys()) == {"k-raw", "k-data", "k-model"}
    assert len([action for action in store.actions() if store.lookup(action.key) == action]) == 3


def test_roots_can_be_given(store, publish):
    for key in ("k1", "k2", "k3"):
        publish(store, key, a=key)
        store.set_ref("r", key, key)
    store.pin("mine", "k3")
    assert find_garbage(store, grace=0).keys == ()
    assert find_garbage(store, grace=0, roots=["k1"]).keys == ("k2",)


def test_what_is_being_built_stays(store, publish):
    raw = publish(store, "k-raw", stage="raw", a="raw")
    publish(store, "k-data", stage="data", made_from=[raw], a="data")
    with store.lease("k-data"):
        assert find_garbage(store, grace=0).keys == ()
    assert set(find_garbage(store, grace=0).keys) == {"k-raw", "k-data"}


class TestWhatComesBetweenTheLookAndTheDeletion:
    def test_a_new_name_or_pin_saves_it(self, store, publish):
        for key in ("k1", "k2", "k3"):
            publish(store, key, a=key)
        garbage = find_garbage(store, grace=0)
        store.set_ref("r", "s", "k1")
        store.pin("mine", "k2")
        collect(store, garbage)
        assert (store.lookup("k1") and store.lookup("k2")) is not None
        assert store.action("k3") is None

    def test_a_new_artifact_of_the_same_files_saves_those(self, store, publish):
        publish(store, "k1", a="1")
        garbage = find_garbage(store, grace=0)
        publish(store, "k2", a="1")
        collect(store, garbage)
        assert store.keys() == ["k2"]
        assert store.lookup("k2") is not None

    def test_a_file_that_is_published_again_right_now_is_young_again(self, store, publish):
        action = publish(store)
        store.remove("k1")
        name = blob_name(store.tree(action.tree).entries[0].sha256)
        garbage = find_garbage(store, grace=0)
        assert name in garbage.files
        collect(store, replace(garbage, grace=3600))
        assert store.files.size(name) == 5
        collect(store, garbage)
        assert store.files.size(name) is None


def test_a_file_that_is_there_is_touched_when_it_is_published_again(store, publish, monkeypatch):
    monkeypatch.setattr("partseg.store.remote_files.YOUNG", 0.5)
    action = publish(store)
    name = blob_name(store.tree(action.tree).entries[0].sha256)
    time.sleep(1.1)
    before = store.files.age(name)
    publish(store, "k2")
    assert store.files.age(name) < before
    assert store.files.read(name) == b"hello"
    assert not store.files.touch("blobs/none")


def test_what_a_killed_writer_left_goes(local, publish):
    for name in ("actions/.tmp-x", "blobs/aa/.tmp-x", "tmp/partseg-x/half"):
        local.files.write(name, b"half")
    collect(local, find_garbage(local))
    assert local.files.size("actions/.tmp-x") == 4  # it may be a writer at work
    collect(local, find_garbage(local, grace=0))
    left = [found.name for folder in ("actions", "blobs", "tmp") for found in local.files.walk(folder)]
    assert left == []


def test_a_damaged_pin_stops_it(store, publish):
    publish(store)
    store.files.write("pins/mine.json", b"{")
    with pytest.raises(StoreError, match="the pin mine is damaged"):
        find_garbage(store, grace=0)


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


class TestUnderALimit:
    """Three artifacts of 1000 bytes that nobody names, published one after the other."""

    @pytest.fixture
    def three(self, local, publish):
        for number in (1, 2, 3):
            publish(local, f"k{number}", a=str(number) * 1000)
            time.sleep(0.02)  # times of files move in steps of some milliseconds
        return local

    def limit(self, store, artifacts):
        """Room for so many of them."""
        trees = sum(found.size for found in store.files.walk("trees"))
        return artifacts * (1000 + trees // 3) + 10

    @pytest.mark.parametrize(
        ("room", "gone"), [(3, ()), (2, ("k1",)), (1, ("k1", "k2")), (0, ("k1", "k2", "k3"))]
    )
    def test_the_oldest_go_until_the_rest_fits(self, three, room, gone):
        garbage = find_garbage(three, grace=0, max_size=self.limit(three, room))
        assert sorted(garbage.keys) == list(gone)
        assert garbage.left <= self.limit(three, room)
        collect(three, garbage)
        assert {f"k{number}" for number in (1, 2, 3) if three.lookup(f"k{number}")} == {"k1", "k2", "k3"} - {
            *gone
        }
        after = find_garbage(three, grace=0, max_size=self.limit(three, 3))
        assert (after.keys, after.files, after.left) == ((), (), garbage.left)

    def test_what_was_laid_out_again_counts_as_used(self, three):
        for key in ("k1", "k2", "k1"):
            three.materialise(three.action(key).tree)
            time.sleep(0.02)
        garbage = find_garbage(three, grace=0, max_size=self.limit(three, 1))
        assert sorted(garbage.keys) == ["k2", "k3"]

    def test_names_and_pins_stay_whatever_the_limit(self, three):
        three.set_ref("r", "s", "k1")
        three.pin("mine", "k2")
        garbage = find_garbage(three, grace=0, max_size=1)
        assert garbage.keys == ("k3",)
        assert garbage.left > 1
        # They take room from the others, too.
        assert find_garbage(three, grace=0, max_size=self.limit(three, 2)).keys == ("k3",)
        assert find_garbage(three, grace=0, max_size=self.limit(three, 3)).keys == ()

    def test_what_is_young_stays_whatever_the_limit(self, three):
        garbage = find_garbage(three, max_size=1)
        assert (garbage.keys, garbage.files) == ((), ())

    def test_a_damaged_artifact_is_not_worth_keeping(self, three):
        three.files.remove(f"trees/{three.action('k3').tree}.json")
        assert find_garbage(three, grace=0, max_size=self.limit(three, 3)).keys == ("k3",)


def test_an_artifact_that_shares_all_its_files_needs_no_room(store, publish):
    named = publish(store, "k1", a="1")
    publish(store, "k2", a="1")
    store.set_ref("r", "s", "k1")
    assert store.tree(named.tree).size > 0
    assert find_garbage(store, grace=0, max_size=0).keys == ()
    assert find_garbage(store, grace=0).keys == ("k2",)


def test_downloads_of_a_removed_artifact_go_too(tmp_path, publish):
    remote = Store(f"memory://{uuid.uuid4().hex}", cache=tmp_path / "cache")
    remote.materialise(publish(remote).tree)
    assert [path for path in (tmp_path / "cache/blobs").rglob("*") if path.is_file()]
    collect(remote, find_garbage(remote, grace=0))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_command_says_what_stays(local, publish):
    publish(local, "k1", a="1" * 1000)
    named = publish(local, "k2", a="2" * 1000)
    local.set_ref("r", "s", "k2")
    arguments = ["gc", "--store", local.url, "--grace", "0", "--max-size", "1kB"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "would free 1.1 kB: 1 artifacts and 2 files; --delete does it" in shown.output
    assert (
        "1.1 kB stay, more than 1.0 kB: they are needed by recipes, pinned, being built or younger"
        in shown.output
    )
    assert local.lookup("k1") is not None
    deleted = CliRunner().invoke(app, [*arguments, "--delete"])
    assert "freed 1.1 kB" in deleted.output
    assert local.action("k1") is None
    assert local.lookup("k2") == named


@pytest.mark.parametrize("text", ["50", "GB", "5 XB", "-1GB", "1e3GB"])
def test_a_size_needs_a_unit(local, text):
    result = CliRunner().invoke(app, ["gc", "--store", local.url, "--max-size", text])
    assert result.exit_code == 2
    assert "write it like 500MB or" in result.output.replace("\n", " ")
