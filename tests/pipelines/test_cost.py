"""What a plan still costs, and its outline."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from partseg.cli import make_app
from pipelines.cost import outlook, training_hours
from pipelines.outline import group_name, nodes, outline
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.workspace import Workspace
from tests.pipelines.recipes import recipe

NAMES = ("vlpart", "vlpart_swinb", "demo")


def planned(name, folder, profile=None, **selection):
    workspace = Workspace.open(home=folder, store=str(folder / "store"))
    plan = make_plan(recipe(name, profile), workspace, Selection(**selection))
    return plan, outlook(plan, workspace)


def test_the_hours_of_every_training_that_is_left_are_added_once(tmp_path: Path) -> None:
    plan, cost = planned("vlpart_swinb", tmp_path)
    assert cost.hours == training_hours(plan.recipe) == 53 + 4.5 + 6 + 8 + 20 + 15 + 3
    assert cost.gpu_hours == 8 * cost.hours
    assert cost.hardware == "8 V100"
    assert cost.other == {
        "70 min for all three sets on 8 V100": ("swinb_golden_paco_parsed",),
        "100 min for all four sets on 8 V100": ("r50_golden_addition_parsed",),
    }
    assert not cost.unpublished
    assert planned("vlpart_swinb", tmp_path, until=("swinb_joint_star",))[1].hours == 57.5


def test_made_up_data_has_no_published_cost_and_needs_no_download(tmp_path: Path) -> None:
    plan, cost = planned("vlpart_swinb", tmp_path, "smoke")
    assert not any(row.cost for row in plan.rows)
    assert (cost.hours, cost.other, cost.missing, cost.download, cost.unpublished) == (0, {}, (), 0, ())


def test_what_is_missing_says_what_to_do_and_files_of_several_datasets_count_once(tmp_path: Path) -> None:
    _, cost = planned("vlpart_swinb", tmp_path)
    missing = {item.source: item for item in cost.missing}
    assert {"pascal_part", "partimagenet", "paco_lvis_v1", "lvis_v1", "imagenet_subset", "weights"} <= set(
        missing
    )
    assert missing["pascal_part"].todo == ("partseg data get pascal_part",)
    minival = "lvis_v1_minival_inserted_image_name.json"  # optional, but one of the stages wants it
    assert missing["lvis_v1"].todo == (
        "partseg data get lvis_v1",
        f"partseg data get lvis_v1 --only {minival}",
    )
    photos = 19336861798 + 815585330  # COCO's, of PACO and of LVIS
    together = missing["paco_lvis_v1"].size + missing["lvis_v1"].size
    assert photos < together < photos + 10**9
    assert missing["imagenet_subset"].by_hand
    assert "image-net.org" in missing["imagenet_subset"].todo[1]
    assert cost.download == sum(item.size for item in cost.missing)
    assert cost.peak == cost.download + 147897477120  # the largest archive is there twice for a while


def test_sizes_of_artifacts_are_judged_by_those_that_are_there(bench) -> None:
    workspace = bench.workspace()
    cost = outlook(bench.plan(), workspace)
    assert (cost.stages, cost.artifacts, len(cost.unknown), cost.known) == (5, 0, 5, False)
    bench.run(until=("sum",))
    cost = outlook(bench.plan(), workspace)
    assert (cost.stages, cost.artifacts, cost.unknown) == (2, 1, ("bit",))  # last is another `add`: one byte
    bench.run()
    cost = outlook(bench.plan(), workspace)
    assert (cost.stages, cost.artifacts, cost.disk, cost.known) == (0, 0, 0, True)
    assert cost.free > 0


def test_a_wrong_folder_and_unknown_weights_are_told_as_they_are(tmp_path: Path) -> None:
    workspace = Workspace.open(home=tmp_path, raw={"voc2007": tmp_path / "nowhere"})
    plan = make_plan(recipe("vlpart_r50_voc"), workspace)
    missing = {item.source: item for item in outlook(plan, workspace).missing}
    assert "no such folder" in missing["voc2007"].why
    (todo,) = missing["weights"].todo
    assert todo.startswith(f"curl -L --create-dirs -o {tmp_path}/raw/weights/resnet50_a1_0")


def test_released_weights_in_the_place_of_a_training_save_its_hours(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "extends: vlpart_swinb\nuntil: [swinb_joint_star]\nstages:\n  swinb_joint: {kind: pretrained, "
        "detector: {include: models/vlpart_swinb.yaml}, weights: swinbase_cascade_lvis_paco.pth}\n"
    )
    workspace = Workspace.open(home=tmp_path)
    plan = make_plan(load_recipe(tmp_path / "own.yaml"), workspace)
    assert plan.row("swinb_joint").cost is None
    assert outlook(plan, workspace).hours == 4.5


@pytest.mark.parametrize("name", NAMES)
def test_the_outline_has_every_stage_once_below_one_it_needs(name: str, tmp_path: Path) -> None:
    plan, _ = planned(name, tmp_path)
    lines = outline(plan)
    assert sorted(row.stage for line in lines for row in line.rows) == sorted(plan.recipe.stages)
    above: list[str] = []
    for line in lines:
        depth = len(line.rules) // 3
        del above[max(0, depth) :]
        for row in line.rows:
            assert (above[-1] in row.needs) if depth else not row.needs
        above.append(line.rows[0].stage)
    assert len(lines) <= len(plan.rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_has_the_edges_of_the_graph(name: str, tmp_path: Path) -> None:
    plan, _ = planned(name, tmp_path)
    drawn = nodes(plan)
    assert len({node.name for node in drawn}) == len(drawn)
    of = {row.stage: node.name for node in drawn for row in node.rows}
    assert set(of) == set(plan.recipe.stages)
    edges = {(of[need], of[stage]) for stage, needs in plan.recipe.needs.items() for need in needs}
    assert edges == {(need, node.name) for node in drawn for need in node.needs}


def test_names_of_a_group() -> None:
    assert group_name(["a_b"]) == "a_b"
    assert group_name(["joint_on_coco", "joint_on_paco"]) == "joint_on_{coco, paco}"
    assert group_name(["dino", "swin_b"]) == "{dino, swin_b}"


def command(*arguments: str) -> None:
    make_app()(list(arguments), standalone_mode=False)


def test_the_command_prints_the_graph_the_cost_and_what_to_do(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    command("plan", "vlpart_swinb", "--html", str(tmp_path / "p.html"), "--svg", str(tmp_path / "p.svg"))
    out = capsys.readouterr().out
    assert re.search(r"└─ swinb_joint +train +blocked +53 h on 8 V100 +with ", out)
    assert re.search(r"^raw_pascal_part +acquire +blocked +pascal_part is not here$", out, re.M)
    assert "109.5 h on 8 V100, 876 GPU hours" in out
    assert "    partseg data get pascal_part\n" in out
    assert re.search(r"disk: at least \d+ GB needed, .* free: (enough|NOT ENOUGH)", out)
    assert all(len(line) <= 120 for line in out.split("\n\n")[0].splitlines())
    picture = ET.fromstring((tmp_path / "p.svg").read_text())
    words = "".join(picture.itertext())
    assert "swinb_in_parsed" in words
    page = (tmp_path / "p.html").read_text()
    assert 'class="node state-blocked"' in page
    assert "partseg data get paco_lvis_v1" in page
    assert not re.search(r"(src|href)=\"http", page)


def test_json_carries_the_outlook(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PARTSEG_HOME", str(tmp_path))
    command("plan", "vlpart_r50_voc", "--json")
    data = json.loads(capsys.readouterr().out)
    assert data["outlook"]["gpu_hours"] == 16
    assert {row["missing"] for row in data["stages"]} == {None, "voc2007", "weights"}
