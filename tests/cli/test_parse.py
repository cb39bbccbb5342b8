"""``partseg parse`` from start to end, on a world of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partseg.cli import main
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
stages:
  raw_parts: {kind: acquire, source: pascal_part, synthetic: {seed: 0, train: 8, val: 3, size: 64}}
  raw_photos:
    kind: acquire
    source: imagenet_folder
    options: {classes: {n02099601: dog, n02124075: cat}}
    synthetic: {seed: 0, per_class: 3, size: 64}
  parts: {kind: convert, raw: raw_parts}
  photos: {kind: convert, raw: raw_photos}
  texts: {kind: vocabulary, published: [pascal_part], encoder: "offline:128"}
  base:
    kind: train
    model: {include: models/tiny.yaml, inference: {short_side: 64, long_side: 96}}
    vocabulary: texts
    augment: {short_sides: [64], sampling: choice}
    schedule: {iterations: 2, batches: 1, warmup: 1, learning_rate: 1e-3, gradient_clip: 5}
    data: [{from: parts, batch_size: 2}]
  vit:
    kind: pretrained
    images: [{from: parts, parts: base}]
    training: {iterations: 2, batch: 4, crop: 48, vit: {dim: 24, depth: 1, image_size: 64, stem: [8, 16]}}
  index:
    kind: base_index
    descriptors: vit
    data: parts
    reading: {short_side: 64, long_side: 96, saliency_heads: [0, 1, 2], saliency_threshold: 0}
  parsed:
    kind: parse
    images: photos
    detector: base
    vocabulary: texts
    by_detector: [cat]
    base: parts
    base_group: all
    index: index
    descriptors: vit
    parser: {score_threshold: 0, match_iou: 0, max_detections: 40, proposals: 40}
  validated:
    kind: parse
    images: parts
    split: val
    detector: base
    vocabulary: texts
    by_detector: all
    base: parts
    base_group: all
    parser: {score_threshold: 0, max_detections: 40}
  later: {kind: parse, images: photos, detector: base, vocabulary: texts, by_detector: all, base: parts}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, all of whose stages but the last have run."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "w.yaml").write_text(RECIPE)
    workspace = Workspace.open(home=folder / "home", processes=0, workers=1)
    plan = make_plan(load_recipe(folder / "w.yaml"), workspace, Selection(until=("parsed", "validated")))
    run_recipe(plan, workspace)
    return folder


@pytest.fixture
def partseg(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``partseg parse`` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("PARTSEG_HOME", str(world / "home"))
    monkeypatch.delenv("PARTSEG_STORE", raising=False)
    monkeypatch.chdir(world)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["partseg", "parse", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_made_up_world_is_known(partseg: Run, tmp_path: Path) -> None:
    page, numbers = tmp_path / "audit.html", tmp_path / "audit.json"
    code, out, err = partseg("audit", "w.yaml", "parsed", "--json", str(numbers), "--output", str(page))
    assert code == 0, err
    assert "w parsed against the made-up world, drawn again" in out
    assert "of 6 parsed images have known parts" in out
    found = json.loads(numbers.read_text())
    assert found["images"]["known"] == 6
    assert found["images"]["not_in_truth"] == 0
    assert found["overall"]["true"] > 40
    assert found["overall"]["parsed"] > 0
    assert sum(row["parsed"] for row in found["paths"].values()) == found["overall"]["parsed"]
    html = page.read_text()
    assert f"of {found['overall']['parsed']:,} parsed parts are right" in html
    assert "https://" not in html


def test_parts_that_the_images_came_with_are_known(partseg: Run) -> None:
    code, out, err = partseg("audit", "w.yaml", "validated")
    assert code == 0, err
    assert "w validated against parts/val" in out
    named = partseg("audit", "w.yaml", "validated", "--truth", "parts/val")
    assert named[1] == out


def test_a_parse_in_a_folder_against_a_truth_in_a_folder(partseg: Run, world: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(home=world / "home")
    plan = make_plan(load_recipe(world / "w.yaml"), workspace)
    folders = {
        name: workspace.store.materialise(plan.row(name).digest or "") for name in ("validated", "parts")
    }
    for truth in (f"{folders['parts']}", f"{folders['parts']}/val"):
        file = tmp_path / "a.json"
        code, _, err = partseg(
            "audit", "--parsed", str(folders["validated"]), "--truth", truth, "--json", str(file)
        )
        assert code == 0, err
        assert json.loads(file.read_text())["images"]["never_parsed"] == 0


def test_both_paths_are_shown(partseg: Run, tmp_path: Path) -> None:
    code, out, err = partseg("show", "w.yaml", "parsed", "--output", str(tmp_path / "sheet.html"))
    assert code == 0, err
    html = (tmp_path / "sheet.html").read_text()
    assert "by transfer; base image 2008_" in html
    assert "by detector; " in html
    assert "The most certain, transferred" in html
    assert "<h2>Base images</h2>" in html
    code, out, _ = partseg(
        "show", "w.yaml", "later", "--image", "n02099601_2", "--output", str(tmp_path / "one.png")
    )
    assert code == 0  # has not run; what it is made from is enough
    assert out.endswith("one.png: 1 image of later\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audit",), "give either RECIPE STAGE or --parsed DIR"),
        (("audit", "w.yaml"), "which stage?"),
        (("audit", "w.yaml", "parsd"), "there is no stage parsd; did you mean parsed?"),
        (("audit", "w.yaml", "base"), "stage base does not parse; these do: parsed, validated, later"),
        (("audit", "w.yaml", "later"), "stage later of w has nothing in the store"),
        (
            ("audit", "w.yaml", "parsed", "--truth", "parts/train"),
            "none of the 6 parsed images is in the truth",
        ),
        (("audit", "w.yaml", "parsed", "--truth", "texts"), "stage texts makes no dataset"),
        (
            ("audit", "w.yaml", "parsed", "--truth", "nowhere"),
            "neither a stage of w nor the folder of a dataset",
        ),
        (("audit", "w.yaml", "parsed", "--truth", "parts/test"), "no split 'test'"),
        (("audit", "w.yaml", "parsed", "--output", "x.png"), "name it .html"),
        (("audit", "--parsed", "nowhere"), "what is true?"),
        (("show", "w.yaml", "parsed", "--output", "x.html", "--image", "zebra"), "no image 'zebra'"),
        (("show", "w.yaml", "later", "--output", "x.html"), "stage later of w has nothing in the store"),
        (("show", "w.yaml", "parsed", "--output", "x.jpg"), "name it .png or .html"),
        (("show", "w.yaml", "parsed", "--output", "x.png", "--most", "0", "--least", "0"), "nothing to draw"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    partseg: Run, world: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(path.name for path in world.iterdir())
    code, out, err = partseg(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(path.name for path in world.iterdir()) == before  # no output, not even half of one


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, partseg.cli as c\ntry: c.make_app()(['parse', 'show', '--help'])\n"
        "except SystemExit: pass\nprint(sorted({'torch', 'pipelines.run', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "COLUMNS": "120"}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "--image" in out
    assert out.strip().endswith("[]")
