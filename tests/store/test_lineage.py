from __future__ import annotations

from dataclasses import replace

import pytest

from partseg.store.lineage import chain, lineage


@pytest.fixture
def line(store, publish):
    """raw -> data -> model -> score; the score is made from the data as well."""
    raw = publish(store, "k-raw", stage="raw", a="raw")
    data = publish(store, "k-data", stage="data", made_from=[raw], a="data")
    model = publish(store, "k-model", stage="model", made_from=[data], a="model")
    return [raw, data, model, publish(store, "k-score", stage="score", made_from=[model, data], a="score")]


def test_an_artifact_knows_all_it_was_made_from(store, line):
    top = lineage(store, line[-1])
    assert [node.stage for node in top.inputs] == ["model", "data"]
    assert [node.action for node in top.walk()] == line


def test_a_record_that_is_gone_leaves_its_content(store, line):
    store.remove("k-data")
    model = lineage(store, line[-1]).inputs[0]
    assert (model.action, model.inputs[0].action, model.inputs[0].digest) == (line[2], None, line[1].tree)
    assert list(chain(store, [line[-1]])) == ["k-model", "k-score"]


def test_of_two_with_the_same_content_the_one_of_the_stage_is_meant(store, publish, line):
    publish(store, "k-a", stage="other", a="raw")
    publish(store, "k-z", stage="other", a="raw")
    assert lineage(store, line[1]).inputs[0].action.key == "k-raw"
    store.set_ref("r", "raw", "k-z")
    assert lineage(store, line[1]).inputs[0].action.key == "k-z"  # what the recipe's stage made last
    named = replace(line[1], facts={**line[1].facts, "input_keys": {"raw": "k-a"}})
    store.commit(named)
    assert lineage(store, named).inputs[0].action.key == "k-a"


def test_content_that_is_handed_on_as_it_is_is_not_its_own_origin(store, publish):
    first = publish(store, "k1", stage="one", a="x")
    second = publish(store, "k2", stage="two", made_from=[first], a="x")
    third = publish(store, "k3", stage="three", made_from=[second], a="x")
    assert first.tree == third.tree
    assert [node.action.key for node in lineage(store, third).walk()] == ["k1", "k2", "k3"]


def test_a_chain_has_inputs_first_and_each_once(store, line):
    assert list(chain(store, [line[2], line[3], line[0]])) == ["k-raw", "k-data", "k-model", "k-score"]
