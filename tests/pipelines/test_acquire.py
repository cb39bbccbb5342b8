from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from partseg.datasets.catalogue import SOURCES
from pipelines.acquire import Params, described, run
from pipelines.artifact import Artifact, StageContext
from pipelines.params import keyed


@pytest.mark.parametrize("source", [name for name in SOURCES if not name.startswith("imagenet")])
def test_every_source_can_be_made_up(source: str, tmp_path: Path) -> None:
    params = Params.model_validate({"source": source, "synthetic": {"train": 2, "val": 1, "size": 48}})
    assert params.raw_files() is None
    (tmp_path / "out").mkdir()
    metrics = run(params, {}, tmp_path / "out", StageContext(work=tmp_path))
    files = [path for path in (tmp_path / "out" / "files").rglob("*") if path.is_file()]
    assert metrics == {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    assert len(files) >= 5
    artifact = Artifact(stage="raw", key="k", digest="d", path=tmp_path / "out")
    assert described(artifact) == (source, {})


def test_the_folders_of_the_options_are_made_up(tmp_path: Path) -> None:
    folders = {"classes": {"n1": "dog"}}
    params = Params.model_validate(
        {"source": "imagenet_folder", "options": folders, "synthetic": {"per_class": 2}}
    )
    run(params, {}, tmp_path, StageContext(work=tmp_path))
    assert sorted(path.name for path in tmp_path.glob("files/n1/*")) == ["n1_1.JPEG", "n1_2.JPEG"]


def test_the_settings_that_matter_are_in_the_key() -> None:
    params = Params.model_validate({"source": "pascal_part", "synthetic": {"train": 3, "val": 2}})
    assert keyed(params)["synthetic"] == {"seed": 0, "size": 128, "train": 3, "val": 2}
    assert orjson.dumps(keyed(params))
    again = Params.model_validate(params.model_dump())
    assert keyed(again) == keyed(params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "pascal_parts"}, "there is no source 'pascal_parts'; there are: .*pascal_part"),
        ({"source": "coco_panoptic", "synthetic": {"per_class": 3}}, "it takes seed, size, train, val"),
        ({"source": "imagenet_folder", "synthetic": {"train": 3}}, "it takes seed, size, per_class"),
        ({"source": "pascal_part", "synthetic": {"train": 0, "val": 1}}, "train: Input should be greater"),
        ({"source": "pascal_part", "options": {"quick": True}}, "known options: splits"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Params.model_validate(settings)
