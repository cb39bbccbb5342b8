"""Raw data a person can mend: one line that names file, record and fix, exit code 2, nothing half done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from partseg.cli import main
from partseg.synthetic import write_pascal_part

MAT = "Annotations_Part/2008_000002.mat"
JPG = "VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_pascal_part(tmp_path / "raw", seed=3, train=3, val=2, size=48)
    return tmp_path / "raw"


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """`partseg run` up to the converted dataset: (exit code, stderr)."""
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PARTSEG_STORE", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def run(folder: Path) -> tuple[int, str]:
        arguments = ["run", "pascal_part_sample", "--raw", f"pascal_part={folder}", "--until", "parts"]
        monkeypatch.setattr(sys, "argv", ["partseg", *arguments, "--no-prefect", "--workers", "0"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def truncate(raw: Path) -> None:
    path = raw / MAT
    path.write_bytes(path.read_bytes()[:300])


def shrink_image(raw: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(raw / JPG)


def rename_part(raw: Path) -> None:
    content = loadmat(raw / MAT)
    content["anno"]["objects"][0, 0][0, 0]["parts"][0, 0]["part_name"] = "flipper"
    savemat(raw / MAT, {"anno": content["anno"]})


def remove_annotations(raw: Path) -> None:
    shutil.rmtree(raw / "Annotations_Part")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (truncate, ("2008_000002.mat", "damaged", "extract")),
        (shrink_image, ("2008_000002", "48x48", "20x30", "do not belong together")),
        (rename_part, ("2008_000002.mat", "flipper", "raw_parts")),
        (remove_annotations, ("raw", "Annotations_Part/*.mat", "unpack")),
        (shutil.rmtree, ("raw", "no such folder")),
    ],
)
def test_bad_raw_data_is_one_line_with_a_fix_and_leaves_no_dataset(convert, raw, tmp_path, harm, named):
    harm(raw)
    code, err = convert(raw)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in named:
        assert text in err
    home = tmp_path / "home"
    assert not list(home.rglob("dataset.json"))
    assert all("convert" not in path.read_text() for path in home.glob("store/actions/*.json"))


def test_good_raw_data_passes(convert, raw, tmp_path):
    assert convert(raw) == (0, "")
    assert list((tmp_path / "home").rglob("actions/*.json"))


def test_a_wrong_folder_is_an_error_even_when_everything_is_in_the_store(convert, raw, tmp_path):
    assert convert(raw)[0] == 0
    code, err = convert(tmp_path)
    assert code == 2
    assert "missing: Annotations_Part/*.mat" in err
    assert err.count("\n") == 1
