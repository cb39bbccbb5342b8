"""The stage that turns names into embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from partseg.errors import RecipeError
from partseg.vocabulary import encode
from pipelines.plan import Selection, make_plan
from pipelines.recipe import load_recipe
from pipelines.run import run_recipe
from pipelines.vocabulary import load_table
from pipelines.workspace import Workspace

RECIPE = """
stages:
  texts:
    {kind: vocabulary, encoder: "offline:16", published: [pascal_part, imagenet_golden], names: [gryphon]}
"""


def test_published_names_have_their_published_prompts(tmp_path):
    (tmp_path / "words.yaml").write_text(RECIPE)
    workspace = Workspace.open(home=tmp_path / "home")
    run = run_recipe(make_plan(load_recipe(tmp_path / "words.yaml"), workspace, Selection()), workspace)
    table = load_table(run.artifact("texts"))
    assert len(table.names) == 93 + 117 + 1
    prompts = {"dog:head": "a dog head", "bottle (paco)": "a bottle", "gryphon": "a gryphon"}
    np.testing.assert_array_equal(table.rows(list(prompts)), encode(list(prompts.values()), "offline:16"))


def test_an_unknown_vocabulary_gets_a_suggestion(tmp_path):
    (tmp_path / "words.yaml").write_text(RECIPE.replace("pascal_part", "pascal_prat"))
    with pytest.raises(
        RecipeError, match=r"no vocabulary 'pascal_prat' is published; did you mean pascal_part\?"
    ):
        load_recipe(tmp_path / "words.yaml")
