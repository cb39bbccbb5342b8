from __future__ import annotations

from typing import Any

import pytest

from partseg.errors import RecipeError
from pipelines import zoo

ZOO = """
source: a paper
release: https://example.org/
whole: all
maybe: {d: {segm/AP: [bbox/AP]}}
hardware: {gpus: 8, gpu: V100}
tables: {one: {title: One, recipe: first}, two: {title: Two}}
minutes: {parsed: 20 min}
rows:
  - id: a
    table: one
    label: A
    <<: &s {stage: s, config: a.yaml, checkpoint: a.pth, hours: [15], metrics: {d: {segm/AP: 1}}}
  - id: b
    table: two
    label: B
    <<: &second {recipe: second}
    stage: t
    config: b.yaml
    checkpoint: b.pth
    hours: [15, 2.5]
    metrics: {}
  - {id: c, table: two, label: C, <<: [*s, *second]}
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    zoo.read_zoo.cache_clear()

    def read(text: str = ZOO, name: str = "made") -> Any:
        (tmp_path / "made.yaml").write_text(text)
        return zoo.read_zoo(name)

    yield read
    zoo.read_zoo.cache_clear()


def test_what_a_zoo_says_of_stages_and_rows(read):
    found = read()
    assert found.published() == {
        "parsed": {"cost": "20 min on 8 V100"},
        "s": {"cost": "15 h on 8 V100", "hours": 15, "gpus": 8, "rows": ["a", "c"]},
        "s_on_d": {"metrics": {"segm/AP": 1}},
        "t": {"cost": "2.5 h on 8 V100", "hours": 2.5, "gpus": 8, "rows": ["b"]},
    }
    assert [found.recipe_of(row) for row in found.rows] == ["first", "second", "second"]
    assert found.row("b").label == "B"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: b", "id: a", "two rows are called a"),
        ("table: one", "table: three", "row a: there is no table three"),
        ("recipe: second", "", "row b: neither it nor its table names a recipe"),
        ("stage: t", "stage: s", "row b: another row gives s other hours"),
        ("whole: all\n", "", "whole"),
        ("segm/AP: [", "segm/AP50: [", "maybe: no row has segm/AP50 on d"),
        ("label: C,", "label: C, metrics: {d: {segm/AP: 2}},", "row c: another row gives s another segm/AP"),
        ("hours: [15, 2.5]", "hours: [0]", "rows.1.hours.0"),
        ("checkpoint: b", "chekpoint: b", "did you mean checkpoint?"),
    ],
)
def test_what_is_wrong_is_named(read, old, new, message):
    with pytest.raises(RecipeError, match=r"made\.yaml") as caught:
        read(ZOO.replace(old, new))
    assert message in str(caught.value)


def test_unknown_zoos_and_rows_get_a_suggestion(read):
    with pytest.raises(RecipeError, match="there is no zoo called mode"):
        read(name="mode")
    with pytest.raises(RecipeError, match="the zoo made has no row aa"):
        read().row("aa")
    assert zoo.find_row("b") == (read(), read().row("b"))
    with pytest.raises(RecipeError, match="no published row is called xyz; partseg zoo lists the rows"):
        zoo.find_row("xyz")


def test_the_zoos_that_come_with_partseg_can_be_read():
    for name in zoo.zoo_names():
        assert zoo.read_zoo(name).rows
