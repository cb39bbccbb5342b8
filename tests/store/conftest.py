from __future__ import annotations

import uuid

import pytest

from partseg.store import Store
from tests.store.s3_server import new_url, s3_server


@pytest.fixture(scope="session")
def s3():
    """Addresses of empty stores on an S3 server of the tests."""
    with s3_server():
        yield new_url


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    """The same contract, wherever a store is."""
    return Store(url_of(request, request.param, tmp_path), cache=tmp_path / "cache", ttl=2.0)


@pytest.fixture(params=["local", "s3"])
def other(request, tmp_path):
    """A second store."""
    url = url_of(request, request.param, tmp_path / "second")
    return Store(url, cache=tmp_path / "second" / "cache", ttl=2.0)


def url_of(request, kind, folder):
    if kind == "s3":
        return request.getfixturevalue("s3")()
    return str(folder / "store") if kind == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def local(tmp_path):
    return Store(tmp_path / "store", cache=tmp_path / "cache", ttl=2.0)


@pytest.fixture
def remote(tmp_path, s3):
    return Store(s3(), cache=tmp_path / "cache", ttl=2.0)


@pytest.fixture
def publish(tmp_path):
    """Publish files; ``made_from`` names the artifacts behind it."""

    def publish(store, key="k1", *, stage="s", made_from=(), **files):
        files = files or {"a": "hello", "b": "world"}
        out = tmp_path / f"out-{uuid.uuid4().hex}"
        (out / "deep").mkdir(parents=True)
        for name, text in files.items():
            (out / "deep" / name).write_text(text)
        inputs = {action.facts["stage"]: action.tree for action in made_from}
        facts = {"stage": stage, "recipe": "r", "inputs": inputs}
        return store.publish(key, out, parts={"kind": "test"}, facts=facts)

    return publish
