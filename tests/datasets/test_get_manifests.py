"""The manifests that come with partseg: valid, and of the layout that the converters read."""

from __future__ import annotations

from pathlib import Path

import pytest

from partseg.datasets.catalogue import SOURCES, source_module, source_options
from partseg.datasets.facts import data_manifest, manifest_names
from partseg.synthetic import make_up

NAMES = manifest_names()
# what a made-up world does without
NOT_MADE_UP = {"VOCdevkit/VOC2010/Annotations", "test", "test.json"}


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_is_valid_and_says_where_its_files_are(name):
    manifest = data_manifest(name)
    for file in manifest.files:
        assert all(url.startswith(("http://", "https://")) for url in file.urls)
        assert file.unpack is None or file.path.startswith("downloads/")
        if file.steps:
            assert "{root}" in " ".join(file.steps)
    for counts in manifest.expected.values():
        assert set(counts) <= {"source_records", "images", "objects", "parts"}


def test_a_file_that_several_datasets_share_is_the_same_in_all_of_them():
    seen = {}
    for name in NAMES:
        manifest = data_manifest(name)
        for file in manifest.files:
            key = (manifest.folder or name, file.path)
            assert seen.setdefault(key, file) == file, f"{name}: {file.path}"


@pytest.mark.parametrize("source", SOURCES)
def test_every_converter_has_a_manifest(source):
    assert source in NAMES


# One's own files have no publisher, and class folders are a matter of choice.
@pytest.mark.parametrize("name", [n for n in NAMES if n != "coco_json" and not n.startswith("imagenet_")])
def test_the_layout_is_the_one_the_converter_reads(name, tmp_path: Path):
    make_up(name, tmp_path, {"size": 64})
    options = source_options(name, {})
    results = [path for file in data_manifest(name).files if not file.optional for path in file.results]
    for path in set(results) - NOT_MADE_UP:
        assert (tmp_path / path).exists(), path
    read = source_module(name).files(tmp_path, options)
    assert read
    for path in read:
        assert any(path == result or path.startswith(f"{result}/") for result in results), path
