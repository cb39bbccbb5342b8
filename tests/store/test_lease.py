from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from partseg.store import Lease
from partseg.store.lease import held_keys, this_process


def test_one_at_a_time(store):
    held, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal held, most
        for _ in range(5):
            with Lease(store.files, "k", ttl=2.0):
                with lock:
                    held += 1
                    most = max(most, held)
                time.sleep(0.002)
                with lock:
                    held -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(store.files.children("claims/k")) <= 2


def test_a_holder_of_another_machine_that_went_silent_is_replaced(store):
    record = {
        "owner": {"host": "far", "machine": "other", "pid": 1, "started": "1"},
        "state": "held",
        "beat": 3,
    }
    store.files.write("claims/k/00000001.json", json.dumps(record).encode())
    told, start = [], time.monotonic()
    with Lease(store.files, "k", ttl=0.4, waiting=told.append):
        assert 0.4 <= time.monotonic() - start < 2
    assert told == ["far:1"]


def test_a_slow_holder_that_beats_keeps_the_key(store):
    with Lease(store.files, "k", ttl=0.4) as lease:
        waiter = threading.Thread(
            target=lambda: Lease(store.files, "k", ttl=0.4).__enter__().__exit__(None, None, None)
        )
        waiter.start()
        time.sleep(1.0)
        assert waiter.is_alive()
        assert lease.check()
    waiter.join(timeout=3)
    assert not waiter.is_alive()


def test_a_holder_that_was_replaced_notices(store):
    with Lease(store.files, "k", ttl=60) as lease:
        store.files.create("claims/k/00000002.json", b'{"owner": {}, "state": "held", "beat": 0}')
        assert not lease.check()


def test_those_that_are_held_now_are_known(store):
    assert held_keys(store.files) == set()
    with Lease(store.files, "k", ttl=60), Lease(store.files, "l", ttl=60):
        assert held_keys(store.files) == {"k", "l"}
        assert held_keys(store.files, silent=0) == set()
    assert held_keys(store.files) == set()
    dead = {"owner": {**this_process(), "started": "1"}, "state": "held", "beat": 3}
    store.files.write("claims/k/00000009.json", json.dumps(dead).encode())
    store.files.write("claims/l/00000009.json", b"{")  # being written
    assert held_keys(store.files) == {"l"}


class TestWhereNothingCanBeCreatedExclusively:
    """Some servers that call themselves S3 ignore ``If-None-Match``."""

    @pytest.fixture(autouse=True)
    def deaf(self, remote, monkeypatch):
        pipe = remote.files.fs.pipe_file

        def deaf(path, value, mode="overwrite", **more):
            return pipe(path, value, **more)

        monkeypatch.setattr(remote.files.fs, "pipe_file", deaf)
        monkeypatch.setattr("partseg.store.lease.SETTLE", 0.3)

    def test_that_is_noticed(self, remote, caplog):
        assert not remote.files.exclusive()
        assert "cannot create a file exclusively" in caplog.text
        assert list(remote.files.walk("claims")) == []

    def test_still_one_at_a_time(self, remote, caplog):
        held, most, lock = 0, 0, threading.Lock()

        def work():
            nonlocal held, most
            with Lease(remote.files, "k", ttl=2.0):
                with lock:
                    held += 1
                    most = max(most, held)
                time.sleep(0.05)
                with lock:
                    held -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1


def test_s3_creates_exclusively(remote):
    assert remote.files.exclusive()
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: remote.files.create("claims/k/1.json", str(n).encode()), range(32)))
    assert sum(won) == 1
    assert remote.files.read("claims/k/1.json") == str(won.index(True)).encode()
