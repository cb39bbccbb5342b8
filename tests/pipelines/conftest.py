from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.workspace import Workspace
from tests.pipelines.fakes import KINDS

RECIPE = """
stages:
  one: {kind: numbers, value: 1, schedule: {max_iter: 100}}
  two: {kind: numbers, value: 2}
  sum: {kind: add, of: [one, two]}
  bit: {kind: parity, of: sum}
  last: {kind: add, of: [bit, two], plus: 10}
"""


class Bench:
    """A folder with a recipe, and the few things one does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configs = folder / "configs"
        self.path = self.write("recipes/work.yaml", RECIPE)

    def write(self, name: str, text: str) -> Path:
        path = self.configs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def recipe(self, name="work", **arguments):
        return load_recipe(name, kinds=KINDS, configs=self.configs, **arguments)

    def workspace(self, **arguments):
        return Workspace.open(home=self.folder / "home", **arguments)

    def plan(self, *, set=None, profile=None, raw=None, name="work", store=None, **selection):
        recipe = self.recipe(name, overrides=set, profile=profile)
        return make_plan(recipe, self.workspace(raw=raw, store=store), Selection(**selection))

    def states(self, **arguments):
        return {row.stage: row.state for row in self.plan(**arguments).rows}

    def run(self, *, raw=None, store=None, watcher=None, **arguments):
        plan = self.plan(raw=raw, store=store, **arguments)
        return run_recipe(plan, self.workspace(raw=raw, store=store), watcher=watcher)

    def outcomes(self, **arguments):
        return {name: result.state for name, result in self.run(**arguments).results.items()}

    def number(self, run, stage):
        return int((run.artifact(stage).path / "number.txt").read_text())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)
