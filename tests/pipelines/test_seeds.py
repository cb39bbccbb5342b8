from __future__ import annotations

import pytest

from partseg.errors import RecipeError
from pipelines.keys import key_of, key_parts
from pipelines.seeds import seeded
from tests.pipelines.recipes import recipe


def keys(found):
    return {
        name: key_of(key_parts(stage.kind, stage.params, dict.fromkeys(stage.needs, "same")))
        for name, stage in found.stages.items()
    }


def test_another_seed_changes_the_trainings_and_nothing_else() -> None:
    demo = recipe("demo")
    before, after = keys(demo), keys(seeded(demo, 7))
    assert {name for name in before if before[name] != after[name]} == {"base", "with_parsed"}
    assert keys(seeded(demo, 0)) == before


@pytest.mark.parametrize(
    ("name", "seed", "message"), [("demo", -1, "negative"), ("prepare", 1, "no training")]
)
def test_a_seed_that_makes_no_sense_is_an_error(name: str, seed: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        seeded(recipe(name), seed)
