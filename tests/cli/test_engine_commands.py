from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import RECIPE
from tests.cli.fresh_process import ROOT, output_of


def test_help_is_quick_and_loads_neither_torch_nor_prefect():
    code = (
        "import sys, partseg.cli as c\ntry: c.make_app()(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'prefect', 'timm', 'pipelines.run'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip().endswith("[]")


def test_planning_loads_neither_torch_nor_prefect(tmp_path):
    (tmp_path / "w.yaml").write_text(RECIPE)
    code = (
        "import sys\nfrom pipelines.kinds import KINDS\nfrom tests.pipelines import fakes\n"
        "KINDS.update(fakes.KINDS)\nsys.argv = ['partseg', 'plan', 'w.yaml']\n"
        "from partseg.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'prefect'} & set(sys.modules)))"
    )
    out = output_of(code, tmp_path)
    assert "never built" in out
    assert out.strip().endswith("[]")
    assert not (tmp_path / "home").exists()  # looking leaves no trace


def test_run_plan_and_status_from_start_to_end(partseg):
    code, out, _ = partseg("run", "w.yaml", "--no-prefect")
    assert code == 0
    assert "1/3 one   built" in out
    assert out.strip().endswith("home/reports/w.html")
    code, out, _ = partseg("run", "w.yaml")  # nothing to do: without Prefect, too
    assert (code, "prefect" in sys.modules and "flows.here" in sys.modules) == (0, False)
    assert "report: " in out
    _, out, _ = partseg("plan", "w.yaml", "--json", "--set", "one.schedule.max_iter=200")
    rows = json.loads(out)["stages"]
    assert [row["state"] for row in rows] == ["run", "maybe", "maybe"]
    assert rows[0]["why"] == ["params.schedule.max_iter: 100 -> 200"]
    _, out, _ = partseg("status", "--json")
    assert [run["state"] for run in json.loads(out)] == ["done", "done"]
    _, out, _ = partseg("status", json.loads(out)[0]["run_id"])
    assert "cached" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing"), "error: there is no recipe called nothing"),
        (("plan", "w.yaml", "--set", "one.vlaue=1"), "unknown name vlaue; did you mean value?"),
        (("plan", "w.yaml", "--force", "tow"), "there is no stage tow; did you mean two?"),
        (
            ("run", "w.yaml", "--only", "two", "--no-prefect"),
            "needs the artifact of one, which is not in the store",
        ),
        (("plan", "w.yaml", "--raw", "x"), "write --raw SOURCE=DIR"),
        (("store", "show", "w/one"), "no artifact of w/one in the store"),
        (("status", "zzz"), "there is no run zzz"),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_exit_code_2(partseg, arguments, message):
    code, _, err = partseg(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_an_unwritable_store_is_one_line(partseg):
    Path("file").write_text("")
    code, _, err = partseg("run", "w.yaml", "--no-prefect", "--store", "file/store")
    assert code == 2
    assert "--store or PARTSEG_STORE" in err
    assert err.count("\n") == 1


def test_the_store_commands(partseg, tmp_path):
    partseg("run", "w.yaml", "--no-prefect")
    _, out, _ = partseg("store", "ls", "--json")
    artifacts = {artifact["refs"][0]: artifact for artifact in json.loads(out) if artifact["refs"]}
    assert {"w/one", "w/two", "w/page"} >= set(artifacts)
    assert "value: 1" in partseg("store", "show", "w/one")[1]
    assert partseg("store", "verify", "--deep")[:2] == (0, "3 artifacts, 0 damaged\n")
    assert "one: cached" in partseg("store", "why", "w.yaml", "one")[1]
    assert "params.value: 1 -> 5" in partseg("store", "why", "w.yaml", "one", "--set", "one.value=5")[1]
    code, out, _ = partseg("diff", "w/one", "w/two")
    assert (code, "kind: numbers -> add" in out) == (0, True)
    assert "would free 0 B: 0 artifacts" in partseg("store", "gc")[1]
    assert partseg("store", "pin", "mine", "w/one")[0] == 0
    assert partseg("store", "rm", "w/one")[0] == 2
    assert partseg("store", "unpin", "mine")[0] == 0
    assert "3 artifacts are in" in partseg("store", "push", str(tmp_path / "other"))[1]
    assert partseg("store", "rm", "w/one")[0] == 0
    assert "its artifact was removed" in partseg("plan", "w.yaml")[1]
    assert partseg("store", "pull", str(tmp_path / "other"))[0] == 0
    assert "its artifact was removed" not in partseg("plan", "w.yaml")[1]


def test_a_damaged_file_is_found_dropped_and_built_again(partseg, tmp_path):
    partseg("run", "w.yaml", "--no-prefect")
    for blob in (tmp_path / "home/store/blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_text("9")
            os.utime(blob, (1_000_000_000, 1_000_000_000))
    code, out, _ = partseg("store", "verify", "--deep")
    assert code == 1
    assert "is damaged" in out
    assert partseg("store", "verify", "--deep", "--drop")[0] == 0
    assert partseg("run", "w.yaml", "--no-prefect")[0] == 0
    assert partseg("store", "verify", "--deep")[0] == 0


def test_accept_takes_the_last_artifact_for_a_new_version(partseg, monkeypatch):
    partseg("run", "w.yaml", "--no-prefect")
    monkeypatch.setattr("tests.pipelines.fakes.add.VERSION", "2")
    assert "version: 1 -> 2" in partseg("plan", "w.yaml")[1]
    assert "accepted as" in partseg("store", "accept", "w.yaml", "two")[1]
    _, out, _ = partseg("plan", "w.yaml", "--json")
    assert {row["state"] for row in json.loads(out)["stages"]} == {"cached"}
    assert partseg("store", "accept", "w.yaml", "two")[0] == 2


def test_an_artifact_leaves_the_store_with_where_it_is_from(partseg, tmp_path):
    assert partseg("run", "w.yaml", "--no-prefect")[0] == 0
    code, _, err = partseg("store", "get", "w/one", "--out", "taken")
    assert code == 0, err
    record = json.loads(Path("taken/provenance.json").read_text())
    assert record["parts"]["kind"] == "numbers"
    assert len(list(Path("taken").iterdir())) > 1
    code, _, err = partseg("store", "get", "w/one", "--out", "taken")
    assert code == 2
    assert "already exists" in err
