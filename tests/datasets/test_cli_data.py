from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def partseg(*arguments: object, cache: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from partseg.cli import main; main()", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PARTSEG_CACHE": str(cache)},
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_from_raw_files_to_an_export_and_a_picture(world: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    done = partseg("convert", "pascal_part", "--raw", world, "--out", out, "--json", cache=cache)
    assert json.loads(done.stdout)["images"] == 31
    stats = json.loads(partseg("stats", out, "--json", cache=cache).stdout)
    assert stats["splits"]["val"]["images"] == 11
    assert stats["categories"]["val"]["dog"] >= 1
    assert "dog" not in stats["categories"]["train"]
    assert json.loads(partseg("check", out, "--json", cache=cache).stdout)["errors"] == 0
    target = tmp_path / "val.json"
    partseg(
        "export", out, "--split", "val", "--out", target, "--compat", "vlpart", "--base-only", cache=cache
    )
    assert len(json.loads(target.read_text())["categories"]) == 77
    picture = tmp_path / "picture.png"
    partseg(
        "show", out, "--raw", world, "--split", "val", "--image", "2010_000008", "--out", picture, cache=cache
    )
    assert Image.open(picture).size[0] > 100


def test_mistakes_are_one_line_with_exit_code_2(world: Path, tmp_path: Path) -> None:
    done = partseg(
        "convert", "pascal_part", "--raw", tmp_path, "--out", tmp_path / "x", cache=tmp_path, code=2
    )
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    done = partseg(
        "convert",
        "pascal_part",
        "--raw",
        world,
        "--out",
        tmp_path / "x",
        "-o",
        "splits",
        cache=tmp_path,
        code=2,
    )
    assert "NAME=VALUE" in done.stderr


def test_a_damaged_dataset_fails_verification(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    partseg("convert", "pascal_part", "--raw", world, "--out", out, "-o", "splits=[val]", cache=tmp_path)
    path = out / "annotations" / "val.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    done = partseg("check", out, cache=tmp_path, code=2)
    assert "annotations/val.parquet is not the file" in done.stdout


@pytest.mark.parametrize("module", ["partseg.cli.data", "partseg.datasets.convert", "partseg.synthetic"])
def test_nothing_here_imports_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
