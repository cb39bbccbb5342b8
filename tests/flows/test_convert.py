"""The flow `convert` fetches what it needs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from partseg.datasets.facts import DataManifest
from partseg.layout import Dataset
from partseg.synthetic import write_pascal_part
from tests.flows.test_scale import task_runs

PUBLISHED = DataManifest.model_validate(
    {
        "name": "pascal_part",
        "title": "Made up",
        "licence": "free",
        "homepage": "http://127.0.0.1:9",
        "files": [
            {
                "path": "downloads/world.zip",
                "urls": ["http://127.0.0.1:9/world.zip"],
                "unpack": {"keep": ["Annotations_Part", "VOCdevkit"]},
                "provides": {"Annotations_Part": 3, "VOCdevkit": 5},
            }
        ],
    }
)


@pytest.fixture
def home(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_raw_files_come_from_a_mirror_and_become_a_dataset(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.convert

    world = tmp_path / "world"
    write_pascal_part(world, seed=1, train=2, val=1, size=48)
    mirror = tmp_path / "mirror" / "downloads"
    mirror.mkdir(parents=True)
    with zipfile.ZipFile(mirror / "world.zip", "w") as archive:
        for path in sorted(world.rglob("*")):
            archive.write(path, path.relative_to(world))
    monkeypatch.setattr(flows.convert, "data_manifest", lambda source: PUBLISHED)
    out = tmp_path / "out"
    state = flows.convert.convert(
        "pascal_part", out=str(out), mirror=str(tmp_path / "mirror"), return_state=True
    )
    assert state.is_completed(), state.message
    assert Dataset.open(out).manifest.splits["train"].images.rows == 2
    assert task_runs() == {"get pascal_part": "Completed"}
    assert (home / "raw" / "pascal_part" / "Annotations_Part").is_dir()


def test_what_only_a_person_can_get_is_explained(home: Path, tmp_path: Path) -> None:
    from flows.convert import convert

    state = convert("imagenet_folder", out=str(tmp_path / "out"), return_state=True)
    assert state.is_failed()
    assert "get them by hand: 1. " in state.message
    assert not (tmp_path / "out").exists()
