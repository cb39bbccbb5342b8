from __future__ import annotations

import uuid

import pytest

from partseg.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return Store(url, cache=tmp_path / "cache", ttl=2.0)


@pytest.fixture
def local(tmp_path):
    return Store(tmp_path / "store", cache=tmp_path / "cache", ttl=2.0)


@pytest.fixture
def publish(tmp_path):
    def publish(store, key="k1", **files):
        files = files or {"a": "hello", "b": "world"}
        out = tmp_path / f"out-{uuid.uuid4().hex}"
        (out / "deep").mkdir(parents=True)
        for name, text in files.items():
            (out / "deep" / name).write_text(text)
        return store.publish(key, out, parts={"kind": "test"}, facts={"stage": "s"})

    return publish
