from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.parsing.config import ParserConfig
from partseg.parsing.naming import SYNONYMS, part_word, published_categories, rename, spellings
from partseg.vocabulary import published, resolve

NAMES = (
    "dog:head",
    "dog:torso",
    "dog:foot",
    "bottle:mouth",
    "bottle:cap",
    "bus:body",
    "Quadruped:Head",
    "Quadruped:Body",
    "Quadruped:Foot",
    "Car:Side Mirror",
    "car:license plate",
    "mirror",
)
VOCABULARY = spellings(NAMES)
ALL, FIRST = ParserConfig(), ParserConfig(part_word="first")


@pytest.mark.parametrize(
    ("name", "label", "config", "expected"),
    [
        ("cat:head", "dog", ALL, "dog:head"),
        ("cat:body", "dog", ALL, "dog:torso"),  # no "dog:body", so the synonym
        ("car:body", "bus", ALL, "bus:body"),
        ("cat:paw", "dog", ALL, "dog:foot"),  # hand, foot, paw are tried in this order
        ("bottle:cap", "bottle", ALL, "bottle:mouth"),  # mouth before cap
        ("cat:tail", "dog", ALL, None),
        ("cat:head", "sheep", ALL, None),
        ("mirror", "dog", ALL, "mirror"),  # an object without a part keeps its name
        ("bench", "dog", ALL, None),
        ("cat:head", "Quadruped", ALL, "Quadruped:Head"),  # Pascal-Part's parts by PartImageNet's names
        ("cat:torso", "Quadruped", ALL, "Quadruped:Body"),
        ("cat:paw", "Quadruped", ALL, "Quadruped:Foot"),
        ("Bird:Head", "dog", ALL, "dog:head"),
        ("Car:Side Mirror", "Car", ALL, "Car:Side Mirror"),
        ("Car:Side Mirror", "Car", FIRST, None),  # a "side", as published
        ("Quadruped:Head", "Quadruped", FIRST, "Quadruped:Head"),
        ("bus:license plate", "car", ALL, "car:license plate"),
    ],
)
def test_what_a_found_part_is_called(
    name: str, label: str, config: ParserConfig, expected: str | None
) -> None:
    assert rename(name, label, VOCABULARY, config) == expected


def test_the_word_of_a_part() -> None:
    assert part_word("bus:license plate", ALL) == "license plate"
    assert part_word("Car:Side Mirror", FIRST) == "side"
    assert part_word("bench", ALL) is None
    assert part_word("quadruped head", ParserConfig(separator=" ")) == "head"


@given(
    st.sampled_from(resolve("pascal_part+partimagenet+paco").names),
    st.sampled_from(resolve("imagenet_golden").names),
    st.sampled_from(["pascal_part", "partimagenet", "paco", "addition_part"]),
    st.sampled_from([ALL, FIRST]),
)
def test_what_is_written_is_the_label_and_a_synonym_of_the_part(
    name: str, label: str, vocabulary: str, config: ParserConfig
) -> None:
    names = resolve(vocabulary).names
    written = rename(name, label, spellings(names), config)
    word = part_word(name, config)
    if written is None:
        assert word is None or f"{label}:{word}" not in names or word in SYNONYMS
        return
    assert written in names
    if word is None:
        assert written.lower() == name.lower()
    else:
        thing, part = written.lower().split(":")
        assert thing == label.lower()
        assert part in SYNONYMS.get(word, (word,))


@pytest.mark.parametrize("vocabulary", published())
def test_a_published_vocabulary_is_a_category_table(vocabulary: str) -> None:
    terms = resolve(vocabulary).terms
    categories = published_categories(vocabulary, ["gryphon", "dog"])
    table = {category.name: category for category in categories}
    assert len(table) == len({category.category_id for category in categories}) == len(categories)
    assert [category.name for category in categories[: len(terms)]] == [term.name for term in terms]
    assert min(category.category_id for category in categories) >= 1
    assert {"gryphon", "dog"} <= {category.name for category in categories if category.kind == "object"}
    assert table["gryphon"].source_id is None
    for term in terms:
        assert (table[term.name].kind, table[term.name].source_id) == (term.kind, term.id)
        parent = table[term.object].category_id if term.kind == "part" else None
        assert table[term.name].parent_id == parent


def test_published_ids_are_kept_where_the_layout_allows_it() -> None:
    assert published_categories("pascal_part", ())[0].category_id == 1
    assert [c.category_id for c in published_categories("partimagenet", ())[:2]] == [1, 2]  # 0 and 1
