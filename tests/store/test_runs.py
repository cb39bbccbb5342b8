"""Whole runs on shared stores: two homes, two processes, damaged stores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from partseg.errors import MissingArtifact
from partseg.store.blobs import STAMP
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace
from tests.pipelines.fakes import KINDS

ROOT = Path(__file__).resolve().parents[2]
SMALL = "stages: {one: {kind: numbers, value: 3}, two: {kind: add, of: [one], plus: 1}}"
SLOW = """
stages:
  one: {kind: numbers, value: 1}
  slow: {kind: slow, of: one, steps: 5, seconds: 0.2}
  last: {kind: add, of: [slow]}
"""


class Team:
    """A recipe and one store; every member has a home of their own."""

    def __init__(self, folder, url):
        self.folder, self.url, self.homes = folder, url, 0
        (folder / "w.yaml").write_text(SMALL)

    def run(self, force=()):
        """A new member runs the recipe: state and number of every stage, and its content."""
        self.homes += 1
        workspace = Workspace.open(home=self.folder / f"home-{self.homes}", store=self.url)
        self.store = workspace.store
        for again in (
            False,
            True,
        ):  # a file that was found damaged while it was read is built by the next run
            try:
                run = run_recipe(
                    make_plan(load_recipe(self.folder / "w.yaml", kinds=KINDS), workspace), workspace
                )
                numbers = {name: (run.artifact(name).path / "number.txt").read_text() for name in run.results}
                return numbers, run
            except MissingArtifact:
                assert not again
        raise AssertionError


@pytest.fixture
def team(tmp_path, request):
    def team(where):
        return Team(tmp_path, request.getfixturevalue("s3")() if where == "s3" else str(tmp_path / "store"))

    return team


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_second_home_with_the_same_store_runs_nothing(team, where):
    team = team(where)
    numbers, first = team.run()
    assert {result.state for result in first.results.values()} == {"built"}
    again, second = team.run()
    assert {result.state for result in second.results.values()} == {"cached"}
    assert numbers == again == {"one": "3", "two": "4"}


@pytest.mark.parametrize(
    ("where", "damage"),
    [("local", "a flipped byte"), ("local", "cut short"), ("local", "gone"), ("s3", "a flipped byte")],
)
def test_whatever_happens_to_a_file_of_the_store_a_run_heals_it(team, where, damage):
    team = team(where)
    numbers, first = team.run()
    digests = {name: result.digest for name, result in first.results.items()}
    files = team.store.files
    names = [found.name for folder in ("blobs", "trees", "actions") for found in files.walk(folder)]
    assert len(names) == 6
    for name in names:
        data = files.read(name)
        files.remove(name)
        if damage == "a flipped byte":
            files.write(name, data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "cut short":
            files.write(name, data[:-1])
        found, run = team.run()
        assert found == numbers, name
        assert {stage: result.digest for stage, result in run.results.items()} == digests
        actions = list(team.store.actions())
        assert len(actions) == 2
        assert [team.store.problems(action, deep=True) for action in actions] == [[], []]


def test_an_input_that_is_found_damaged_is_built_again_by_the_same_run(tmp_path):
    """A disk that loses a bit leaves no trace that a look at sizes and times could see."""
    (tmp_path / "w.yaml").write_text(SMALL)
    workspace = Workspace.open(home=tmp_path / "home")
    recipe = load_recipe(tmp_path / "w.yaml", kinds=KINDS)
    first = run_recipe(make_plan(recipe, workspace), workspace)
    blob = first.artifact("one").path / "number.txt"
    blob.chmod(0o644)
    blob.write_text("9")
    os.utime(blob, (STAMP, STAMP))
    plan = make_plan(recipe, workspace, Selection(force=("two",)))
    assert {row.stage: row.state for row in plan.rows} == {"one": "cached", "two": "run"}
    run = run_recipe(plan, workspace)
    assert {name: result.state for name, result in run.results.items()} == {"one": "built", "two": "built"}
    assert run.results["two"].digest == first.results["two"].digest


def test_two_processes_at_once_do_each_stage_once(s3, tmp_path):
    (tmp_path / "w.yaml").write_text(SLOW)
    trace, url = tmp_path / "trace", s3()

    def start(member):
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PARTSEG_HOME": str(tmp_path / member),
            "PARTSEG_STORE": url,
            "FAKE_TRACE": str(trace),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "tests.pipelines.fakes.cli", "run", "w.yaml", "--no-prefect"]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    members = [start("anna"), start("bert")]
    said = [member.communicate(timeout=120) for member in members]
    assert [member.returncode for member in members] == [0, 0], said
    assert trace.read_text().count("step") == 5
    for stage in ("one", "slow", "last"):
        built = [f"{stage:<4}  built" in out for out, _ in said]
        assert sum(built) == 1, (stage, said)
