from __future__ import annotations

import json
import threading
import time

from partseg.store import Lease


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
