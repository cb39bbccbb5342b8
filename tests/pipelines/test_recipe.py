from __future__ import annotations

import pytest

from partseg.errors import RecipeError
from pipelines.recipe import parse_overrides


def fails(bench, text, **arguments):
    bench.write("recipes/bad.yaml", text)
    with pytest.raises(RecipeError) as caught:
        bench.recipe("bad", **arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "stages: {a: {kind: numbers, vlaue: 1}}",
            ["bad.yaml: stage a", "unknown name vlaue", "did you mean value?"],
        ),
        (
            "stages: {a: {kind: numbers, schedule: {max_itre: 1}}}",
            ["unknown name schedule.max_itre", "did you mean max_iter?"],
        ),
        ("stages: {a: {kind: number}}", ["unknown kind of stage: number", "did you mean numbers?"]),
        ("stages: {a: {value: 1}}", ["stage a has no kind"]),
        ("stages: {a: {kind: numbers}, b: {kind: add, of: [aa]}}", ["stage b: needs aa", "did you mean a?"]),
        (
            "stages: {a: {kind: add, of: [b]}, b: {kind: add, of: [a]}}",
            ["stages need each other in a circle", "a -> b -> a"],
        ),
        ("stages: {a: {kind: add}}", ["stage a: of is missing"]),
        ("stages: {a: {kind: numbers, value: many}}", ["stage a: value: ", "it says 'many'"]),
        ("stagse: {}", ["unknown name stagse", "did you mean stages?"]),
        ("stages: {}", ["the recipe has no stages"]),
        ("stages: {a: {kind: numbers}\n", ["bad.yaml:2: not valid YAML"]),
        ("stages: {a: {kind: numbers, value: 1, value: 2}}", ["value is given twice"]),
        ("extends: nothing\nstages: {}", ["there is no recipe called nothing"]),
        ("extends: bad\nstages: {}", ["extend each other in a circle"]),
        ("- a list", ["must hold a mapping"]),
        ("stages: {a: {kind: numbers, schedule: {include: models/none.yaml}}}", ["no file models/none.yaml"]),
    ],
)
def test_what_is_wrong_is_named(bench, text, expected):
    message = fails(bench, text)
    for part in expected:
        assert part in message


def test_an_unknown_recipe_or_profile_gets_a_suggestion(bench):
    with pytest.raises(RecipeError, match=r"there is no recipe called wrok; did you mean work?"):
        bench.recipe("wrok")
    bench.write("profiles/smoke.yaml", "every: {}")
    with pytest.raises(RecipeError, match=r"there is no profile called smok; did you mean smoke?"):
        bench.recipe(profile="smok")


def test_layers_are_merged_in_their_order(bench):
    bench.write("models/small.yaml", "max_iter: 7\nsteps: [1, 2]\n")
    bench.write(
        "recipes/base.yaml",
        "every: {numbers: {value: 3}}\n"
        "stages: {a: {kind: numbers}, b: {kind: numbers, value: 4}, gone: {kind: numbers}}\n",
    )
    bench.write(
        "recipes/child.yaml",
        """
extends: base
stages:
  a: {schedule: {include: models/small.yaml, steps: [9]}}
  gone: null
  c: {kind: add, of: [a, b]}
profiles:
  smoke: {stages: {b: {schedule: {max_iter: 1}}}}
""",
    )
    bench.write("profiles/smoke.yaml", "every: {numbers: {schedule: {max_iter: 2, steps: [5]}}}")
    recipe = bench.recipe("child")
    assert list(recipe.stages) == ["a", "b", "c"]
    assert recipe.stages["a"].params.value == 3
    assert recipe.stages["b"].params.value == 4
    assert recipe.stages["a"].params.schedule.model_dump() == {"max_iter": 7, "steps": (9,)}
    smoke = bench.recipe("child", profile="smoke")
    assert smoke.label == "child@smoke"
    assert smoke.stages["a"].params.schedule.model_dump() == {"max_iter": 2, "steps": (5,)}
    assert smoke.stages["b"].params.schedule.model_dump() == {"max_iter": 1, "steps": (5,)}


def test_the_content_of_an_included_file_is_part_of_the_key(bench):
    bench.write("models/small.yaml", "max_iter: 7\n")
    bench.write("recipes/inc.yaml", "stages: {a: {kind: numbers, schedule: {include: models/small.yaml}}}")
    bench.run(name="inc")
    bench.write("models/small.yaml", "# only a comment\nmax_iter: 7\n")
    assert bench.states(name="inc") == {"a": "cached"}
    bench.write("models/small.yaml", "max_iter: 8\n")
    assert bench.plan(name="inc").row("a").why == ("params.schedule.max_iter: 7 -> 8",)


def test_a_stage_of_another_kind_starts_afresh(bench):
    bench.write("recipes/child.yaml", "extends: work\nstages: {sum: {kind: parity, of: one}}")
    assert bench.recipe("child").stages["sum"].params.of == "one"


def test_overrides_reach_into_mappings_and_lists(bench):
    recipe = bench.recipe(
        overrides=parse_overrides(["one.schedule.steps=[3, 4]", "sum.of.1=one", "sum.plus=2"])
    )
    assert recipe.stages["one"].params.schedule.steps == (3, 4)
    assert recipe.stages["sum"].params.of == ("one", "one")
    assert recipe.stages["sum"].needs == ("one",)
    with pytest.raises(RecipeError, match=r"there is no stage onne; did you mean one?"):
        bench.recipe(overrides=parse_overrides(["onne.value=1"]))
    with pytest.raises(RecipeError, match=r"unknown name vlaue; did you mean value?"):
        bench.recipe(overrides=parse_overrides(["one.vlaue=1"]))
    with pytest.raises(RecipeError, match=r"--set STAGE.PARAM=VALUE"):
        parse_overrides(["value"])


def test_yaml_words_are_words_and_numbers_are_numbers(bench):
    path = bench.write("x.yaml", "on: yes\na: 1e-4\nb: 5.\nc: 10\nd: true\ne: 1.5\nf: null\ng: 1e3x\n")
    from pipelines.yaml_files import read_yaml

    assert read_yaml(path) == {
        "on": "yes",
        "a": 1e-4,
        "b": 5.0,
        "c": 10,
        "d": True,
        "e": 1.5,
        "f": None,
        "g": "1e3x",
    }


def test_stages_come_in_an_order_in_which_they_can_run(bench):
    bench.write(
        "recipes/r.yaml", "stages: {b: {kind: add, of: [c, a]}, a: {kind: numbers}, c: {kind: add, of: [a]}}"
    )
    assert list(bench.recipe("r").stages) == ["a", "c", "b"]


LIBRARY = """
stages:
  one: {kind: numbers, value: 1}
  two: {kind: numbers, value: 2}
  sum: {kind: add, of: [one, two]}
  sum_of_sums: {kind: add, of: [sum, sum]}
  alone: {kind: numbers, value: 3}
published: {sum: {cost: 2 h}, alone: {cost: 1 h}}
"""


def test_until_takes_from_a_library_what_is_needed(bench):
    bench.write("recipes/parts/library.yaml", LIBRARY)
    bench.write("recipes/some.yaml", 'extends: parts/library.yaml\nuntil: ["sum*"]')
    bench.write("recipes/less.yaml", "extends: some\nuntil: [sum]")
    assert list(bench.recipe("some").stages) == ["one", "two", "sum", "sum_of_sums"]
    less = bench.recipe("less")  # the last word counts
    assert list(less.stages) == ["one", "two", "sum"]
    assert less.published == {"sum": {"cost": "2 h"}}
    assert bench.run(name="less").results.keys() == {"one", "two", "sum"}
    assert bench.states(name="some") == {
        "one": "cached",
        "two": "cached",
        "sum": "cached",
        "sum_of_sums": "run",
    }


def test_until_names_what_does_not_exist(bench):
    bench.write("recipes/library.yaml", LIBRARY)
    message = fails(bench, "extends: library\nuntil: [summ]")
    assert "until: there is no stage summ; did you mean sum?" in message
    assert "until: there is no stage s??_x" in fails(bench, "extends: library\nuntil: ['s??_x']")
    overrides = parse_overrides(["alone.value=5"])
    message = fails(bench, "extends: library\nuntil: [sum]", overrides=overrides)
    assert "--set alone.value: this recipe does without that stage" in message


def test_a_mapping_reaches_every_entry_of_a_list(bench):
    from pipelines.yaml_files import merge

    base = {"data": [{"from": "a", "size": {"short": 1, "long": 2}}, {"from": "b"}], "steps": [1, 2]}
    over = {"data": {"size": {"short": 9}}, "steps": [3]}
    assert merge(base, over) == {
        "data": [{"from": "a", "size": {"short": 9, "long": 2}}, {"from": "b", "size": {"short": 9}}],
        "steps": [3],
    }
    assert merge({"steps": [1, 2]}, {"steps": {"a": 1}}) == {"steps": {"a": 1}}  # no entries to go to
    assert merge({"steps": []}, {"steps": {"a": 1}}) == {"steps": {"a": 1}}


def test_published_numbers_belong_to_stages(bench):
    message = fails(bench, "extends: work\nstages: {}\npublished: {summ: {cost: 1 h}}")
    assert "published: there is no stage summ" in message
    assert "did you mean sum?" in message
    assert "there is no zoo called vlprat" in fails(bench, "extends: work\nzoo: vlprat")
